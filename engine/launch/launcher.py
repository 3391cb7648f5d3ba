"""The one seam through which processes are started: run this command, give back a handle.

`LocalLauncher` runs them on this machine, `engine.launch.ray_launcher` where a Ray cluster has
room. What
either starts dies with it, whole trees at a time.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.launch import process_guard
from registry.errors import Unavailable
from registry.settings import settings

LOOPBACK = "127.0.0.1"
# Within a command: where a server is to listen for the caller, filled in on the machine it runs on.
HOST, PORT = "{host}", "{port}"


@dataclass(frozen=True)
class Resources:
    """What a process holds of its machine while it runs; on this one it is taken as it comes."""

    num_cpus: float = 1
    num_gpus: int = 0


class Process(Protocol):
    @property
    def name(self) -> str:
        """Names the process in logs."""

    @property
    def address(self) -> str | None:
        """`HOST:PORT` as in its command; None while it waits for a machine with room for it."""

    def poll(self) -> int | None:
        """None while it runs, then its status; a negative one is the signal that killed it."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds for the end; what `poll` says then."""

    def terminate(self, grace: float) -> None:
        """Ask it to end, and kill it with all it started when it has not after `grace` seconds."""


class Launcher(Protocol):
    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> Process:
        """Start a command with exactly this environment, its output appended to `log_path`.

        `{host}` and `{port}` in the command become an address on its machine that nobody listens
        on. The process dies with the caller's thread: call from one that lives as long as it
        should. Raises Unavailable when the launcher cannot start anything.
        """


def configured() -> Launcher:
    """The launcher of the settings. Raises Unavailable when its packages are not installed."""
    if settings().launcher == "local":
        return LocalLauncher()
    # Ray is an extra, and loading it takes seconds.
    try:
        from engine.launch.ray_launcher import RayLauncher
    except ImportError as error:
        raise Unavailable(
            f"NEXUSMIX_LAUNCHER is ray, but {error}: ./nexusmix installs what is missing"
        ) from error
    return RayLauncher()


class LocalLauncher:
    """Processes on this machine, each under a keeper that leads a group of its own."""

    def __init__(self, *, host: str = LOOPBACK) -> None:
        """`host`: where its callers reach this machine."""
        self._host = host

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> "LocalProcess":
        log_path.parent.mkdir(parents=True, exist_ok=True)
        port = str(free_port(self._host))
        filled = [word.replace(HOST, self._host).replace(PORT, port) for word in command]
        # -I -S: the keeper needs the standard library only, and starts in a few milliseconds.
        keeping = [sys.executable, "-I", "-S", str(Path(process_guard.__file__)), str(os.getpid())]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*keeping, *filled],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return LocalProcess(process, address=f"{self._host}:{port}")


class LocalProcess:
    def __init__(self, keeper_process: "subprocess.Popen[bytes]", *, address: str) -> None:
        self._keeper = keeper_process
        self._address = address

    @property
    def pid(self) -> int:
        return self._keeper.pid

    @property
    def name(self) -> str:
        return f"pid {self.pid}"

    @property
    def address(self) -> str:
        return self._address

    def poll(self) -> int | None:
        return self.wait(timeout=0)

    def wait(self, timeout: float | None = None) -> int | None:
        running = self._keeper.returncode is None
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout)
        if running and self._keeper.returncode == -signal.SIGKILL:
            # Perhaps it was the keeper itself that was killed, and could not clean up.
            self._kill_group()
        return self._keeper.returncode

    def terminate(self, grace: float) -> None:
        if self.poll() is not None:
            return
        self._keeper.terminate()
        if self.wait(grace) is None:
            # By the keeper, who alone knows those that left its group.
            self._keeper.send_signal(process_guard.KILL)
            self._keeper.wait()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGKILL)


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that nobody listens on, at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
