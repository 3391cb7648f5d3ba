"""A launcher that forks Python modules from a server that has imported what they need.

Importing torch and transformers takes longer than much of what a process does with them.
"""

import json
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.launch import process_guard
from engine.launch.adopted_process import AdoptedProcess, Identity, process_times
from engine.launch.launcher import LocalLauncher, LocalProcess, Process, Resources

# The prefix of the commands that a server can fork.
PYTHON_MODULE = [sys.executable, "-m"]
# A server that listens answers at once, unless the machine is very busy.
ANSWER_SECONDS = 10.0
GRACE_SECONDS = 5.0


class ForkingLauncher:
    """Forks commands `python -m MODULE ...` from a server; starts others as `LocalLauncher` does.

    While the server still imports its modules, or cannot be reached, commands start from nothing.
    A command without placeholders is forked. The server ends with this process.
    """

    def __init__(self, modules: Sequence[str], *, env: Mapping[str, str], log_path: Path) -> None:
        """Start a server that imports `modules`, in this environment."""
        self._local = LocalLauncher()
        self._command = [*PYTHON_MODULE, "engine.launch.fork_server", "{socket}", *modules]
        self._env, self._log_path = env, log_path
        self._server = self._start()

    @property
    def pid(self) -> int:
        """The id of the server's process guard."""
        return self._server.pid

    @property
    def is_ready(self) -> bool:
        """Whether the server listens."""
        return self._socket.exists()

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> Process:
        """Start a command as `Launcher.run` does."""
        if list(command[:2]) == PYTHON_MODULE:
            if self._server.poll() is not None:
                self._server = self._start()
            if forked := self._fork(command[1:], env=env, log_path=log_path):
                return forked
        return self._local.run(command, env=env, log_path=log_path, resources=resources)

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        """Return a process that an earlier launcher has started. Raises Unavailable."""
        return self._local.adopt(identity, address=address)

    def close(self) -> None:
        """End the server, and with it all processes that it forked."""
        self._server.terminate(GRACE_SECONDS)

    @property
    def _socket(self) -> Path:
        return Path(self._server.address.removeprefix("unix:"))

    def _start(self) -> LocalProcess:
        return self._local.run(self._command, env=self._env, log_path=self._log_path)

    def _fork(
        self, arguments: Sequence[str], *, env: Mapping[str, str], log_path: Path
    ) -> "ForkedProcess | None":
        """Return the process of a command, or None when no server can fork it."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        asked = json.dumps({"arguments": list(arguments), "env": dict(env)}).encode() + b"\n"
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        with log_path.open("ab") as log:
            try:
                connection.connect(str(self._socket))
                sent = socket.send_fds(connection, [asked], [log.fileno()])
                connection.sendall(asked[sent:])
                pid = _number(connection)
            except OSError:
                pid = None
        if pid is None:
            connection.close()
            return None
        return ForkedProcess(pid, connection)


class ForkedProcess:
    """A process that a server has forked, under its process guard."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        """`connection` brings the status. While it is open, the guard `pid` runs."""
        self._pid, self._connection = pid, connection
        self._status: int | None = None

    @property
    def name(self) -> str:
        return f"pid {self._pid}"

    @property
    def address(self) -> None:
        return None

    @property
    def identity(self) -> Identity | None:
        """None: the process ends with the server, so no later launcher finds it."""
        return None

    def poll(self) -> int | None:
        return self.wait(timeout=0)

    def wait(self, timeout: float | None = None) -> int | None:
        if self._status is None:
            self._connection.settimeout(timeout)
            try:
                status = _number(self._connection)
            except (BlockingIOError, TimeoutError):
                return None
            except OSError:
                status = None
            # The guard was killed; the kernel has killed its child with it.
            self._status = -signal.SIGKILL if status is None else status
            self._connection.close()
        return self._status

    def cpu_seconds(self) -> float:
        return process_times(self._pid)

    def terminate(self, grace: float) -> None:
        self._send(signal.SIGTERM)
        if self.wait(grace) is None:
            self._send(process_guard.KILL)
            self.wait()

    def _send(self, number: int) -> None:
        if self.poll() is None:
            process_guard.kill(self._pid, number)


def _number(connection: socket.socket) -> int | None:
    """Read a line with a number; None when the other side has ended. Raises OSError."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return None
        line += byte
    return int(line)
