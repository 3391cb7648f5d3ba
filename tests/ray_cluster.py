"""A Ray cluster of one node that no other process can reach.

Ray listens on every interface, and everyone who reaches it may run programs. So its processes, and
the test thread that uses them, run in a network namespace that has only loopback.
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
# The smallest size that Ray accepts is 75 MB.
OBJECT_STORE_BYTES = 80_000_000
# Its last message at the start, and the longest time until then on a busy machine.
STARTED = "This command will now block forever"
START_SECONDS = 300

# From sched.h, net/if.h and bits/ioctls.h.
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


class NetworkRefused(Exception):
    """This account or container must not create network namespaces."""


@contextmanager
def private_network() -> Iterator[None]:
    """Move this thread, and processes that it starts, into a network namespace of their own.

    It lasts until the end of the block. Raises NetworkRefused.
    """
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
    """Run a cluster during the block; afterwards none of its processes and files are left."""
    # The path is short, since Ray has sockets below it, whose paths have at most 107 characters.
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
                # Idle processes are not needed, since ours have an environment of their own.
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
            # The process guard adopts background processes and ends them.
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
