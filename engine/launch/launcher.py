"""The one interface through which processes are started: run a command and return a handle.

`LocalLauncher` runs processes on this machine, `engine.launch.ray_launcher` on a node of a Ray
cluster that has room. A process and all its descendants end with the launcher that started them.
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

from engine.launch import process_guard, sockets
from engine.launch.adopted_process import AdoptedProcess, Identity, process_times

LOOPBACK = "127.0.0.1"
# Placeholders in a command: where a server listens for the caller, filled in on the machine that
# runs it. A socket is reached from that machine only.
HOST, PORT, SOCKET = "{host}", "{port}", "{socket}"


@dataclass(frozen=True)
class Resources:
    """The CPUs and GPUs that a process reserves while it runs; `LocalLauncher` ignores them."""

    num_cpus: float = 1
    num_gpus: int = 0


class Process(Protocol):
    """A started process."""

    @property
    def name(self) -> str:
        """The process's name in logs."""

    @property
    def address(self) -> str | None:
        """`http://HOST:PORT` or `unix:PATH`, by the placeholders of the command.

        None while the process waits for a machine.
        """

    @property
    def identity(self) -> Identity | None:
        """How another process of this machine finds it again; None when none can."""

    def poll(self) -> int | None:
        """Return None while the process runs, then its status; -N means signal N."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds for the end, then return the result of `poll`."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and its descendants; 0 when it is unknown."""

    def terminate(self, grace: float) -> None:
        """Ask the process to end; after `grace` seconds kill it and its descendants."""


class Launcher(Protocol):
    """Starts processes."""

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        """Return a process that an earlier launcher has started.

        Raises Unavailable when it does not run any more, or this launcher cannot find it.
        """

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> Process:
        """Start a command with exactly this environment and append its output to `log_path`.

        `{host}` and `{port}` in the command are replaced by an unused address of the machine that
        runs it, `{socket}` by an unused path. The process dies with the caller's process, unless
        the launcher says otherwise. Raises Unavailable when the launcher cannot start anything.
        """


class LocalLauncher:
    """Starts processes on this machine, each under its own process guard."""

    def __init__(
        self, *, host: str = LOOPBACK, keeper: int | None = None, leaves_children: bool = False
    ) -> None:
        """`host` is the address at which callers reach this machine.

        Processes go on when this one dies as long as the process `keeper` inherits them. With
        `leaves_children` their own children may outlive them.
        """
        self._host = host
        parents = [pid for pid in (os.getpid(), keeper) if pid is not None]
        self._guard = process_guard.arguments(parents, leaves_children=leaves_children)

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> "LocalProcess":
        """Start a command as `Launcher.run` does."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        address, arguments = placed(command, host=self._host)
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *self._guard, *arguments],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return LocalProcess(process, address=address)

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        """Return a process that an earlier launcher has started. Raises Unavailable."""
        return AdoptedProcess(identity, address=address)


class LocalProcess:
    """A process on this machine, under its process guard."""

    def __init__(self, guard: "subprocess.Popen[bytes]", *, address: str) -> None:
        self._guard = guard
        self._address = address

    @property
    def pid(self) -> int:
        """The id of the process guard, which leads the process group."""
        return self._guard.pid

    @property
    def identity(self) -> Identity | None:
        """How a later launcher finds the process guard; None when it has ended."""
        return None if self.poll() is not None else Identity.of(self.pid)

    @property
    def name(self) -> str:
        return f"pid {self.pid}"

    @property
    def address(self) -> str:
        return self._address

    def poll(self) -> int | None:
        return self.wait(timeout=0)

    def wait(self, timeout: float | None = None) -> int | None:
        was_running = self._guard.returncode is None
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(timeout)
        if was_running and self._guard.returncode == -signal.SIGKILL:
            # Perhaps the guard itself was killed and could not clean up.
            process_guard.kill_group(self.pid)
        if was_running and self._guard.returncode is not None and self._address.startswith("unix:"):
            Path(self._address.removeprefix("unix:")).unlink(missing_ok=True)
        return self._guard.returncode

    def cpu_seconds(self) -> float:
        return process_times(self.pid)

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        if self.poll() is None:
            self._guard.terminate()

    def terminate(self, grace: float) -> None:
        if self.poll() is not None:
            return
        self._guard.terminate()
        if self.wait(grace) is None:
            # The guard kills them: only the guard knows the descendants that left its process
            # group.
            self._guard.send_signal(process_guard.KILL)
            self._guard.wait()


def placed(command: Sequence[str], *, host: str = LOOPBACK) -> tuple[str, list[str]]:
    """Return an unused address of this machine, and a command with its placeholders filled in."""
    if any(SOCKET in argument for argument in command):
        path = str(sockets.new_socket())
        return f"unix:{path}", [argument.replace(SOCKET, path) for argument in command]
    port = str(free_port(host))
    filled = [argument.replace(HOST, host).replace(PORT, port) for argument in command]
    return f"http://{host}:{port}", filled


def free_port(host: str = LOOPBACK) -> int:
    """Return a TCP port of `host` on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
