"""A Ray cluster of one node that nobody outside of this machine, nor on it, can reach.

Ray listens on every interface, and whoever reaches it may run programs. So its processes, and the
thread of the tests that use them, have a network of their own with nothing but loopback in it.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.launch.launcher import LocalLauncher, LocalProcess

PORT = 6380
ADDRESS = f"127.0.0.1:{PORT}"
OBJECT_STORE_BYTES = 80_000_000  # the smallest that it takes is 75 MB
# What it says last, and how long that may take beside much other work.
STARTED = "This command will now block forever"
START_SECONDS = 300

# From sched.h, net/if.h and bits/ioctls.h.
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


class NetworkRefused(Exception):
    """This account, or this container, may not make networks."""


@contextmanager
def private_network() -> Iterator[None]:
    """This thread and what it starts meanwhile in a network of their own. Raises NetworkRefused."""
    libc = ctypes.CDLL(None, use_errno=True)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise NetworkRefused(os.strerror(ctypes.get_errno()))
        _bring_up_loopback()
        try:
            yield
        finally:
            assert libc.setns(outside, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(outside)


@contextmanager
def cluster(*, num_cpus: int) -> Iterator[None]:
    """A running cluster, nothing of which is left afterwards."""
    # A short path: Ray keeps sockets below it, and a socket's path has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        options = {
            "node-ip-address": "127.0.0.1",
            "port": PORT,
            "num-cpus": num_cpus,
            "num-gpus": 0,
            "object-store-memory": OBJECT_STORE_BYTES,
            "include-dashboard": "false",
            "include-log-monitor": "false",
            "temp-dir": folder,
        }
        ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
        log_path = Path(folder, "head.log")
        head = LocalLauncher().run(
            [
                *(*ray, "start", "--head", "--block", "--disable-usage-stats"),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            env=os.environ
            | {
                "RAY_USAGE_STATS_ENABLED": "0",
                # Processes for everybody: ours have an environment of their own.
                "RAY_prestart_worker_first_driver": "0",
                "RAY_raylet_start_wait_time_s": str(START_SECONDS),
                "GLOO_SOCKET_IFNAME": "lo",
            },
            log_path=log_path,
        )
        try:
            _wait_until_started(head, log_path)
            yield
        finally:
            # Its keeper adopts what is started in the background, and leaves nothing of it.
            head.terminate(0)


def _wait_until_started(head: LocalProcess, log_path: Path) -> None:
    for _ in range(START_SECONDS):
        if STARTED in log_path.read_text():
            return
        if head.wait(1) is not None:
            break
    raise AssertionError(f"Ray did not start:\n{log_path.read_text()}")


def _bring_up_loopback() -> None:
    with socket.socket() as any_socket:
        flags = struct.pack("16sh14x", b"lo", IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, flags)
