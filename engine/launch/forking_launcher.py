"""A launcher that forks Python modules from a server that has imported what they need.

Importing torch, transformers or vLLM takes longer than much of what a process does with them.
"""

import json
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from engine.launch import process_guard
from engine.launch.adopted_process import AdoptedProcess, Identity, process_times
from engine.launch.launcher import LocalLauncher, LocalProcess, Process, Resources, placed
from registry.errors import Unavailable

# The prefix of the commands that a server can fork.
PYTHON_MODULE = [sys.executable, "-m"]
# A server that listens answers at once, unless the machine is very busy.
ANSWER_SECONDS = 10.0
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05


class ForkingLauncher:
    """Forks commands `python -m MODULE ...` from a server; starts others as `LocalLauncher` does.

    Commands start from nothing while the server cannot be reached, or still imports its modules
    after `wait_seconds`. The server ends with this process, and what it forked with it, unless the
    process `keeper` inherits that.
    """

    def __init__(
        self,
        modules: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        keeper: int | None = None,
        wait_seconds: float = 0.0,
    ) -> None:
        """Start a server that imports `modules`, in this environment."""
        self._local = LocalLauncher(keeper=keeper)
        self._command = [*PYTHON_MODULE, "engine.launch.fork_server", "{socket}", *modules]
        self._env, self._log_path, self._keeper = env, log_path, keeper
        self._wait_seconds = wait_seconds
        self._restarting, self._closing = threading.Lock(), threading.Event()
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
        """Start a command as `Launcher.run` does. Raises Unavailable after `close`."""
        if list(command[:2]) == PYTHON_MODULE:
            self._await_server()
            address, filled = placed(command)
            asked = {"arguments": filled[1:], "env": dict(env), "keeper": self._keeper}
            if (found := self._fork(asked, log_path)) is not None:
                pid, connection = found
                return ForkedProcess(
                    pid, connection, address=address, is_kept=self._keeper is not None
                )
        return self._local.run(command, env=env, log_path=log_path, resources=resources)

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        """Return a process that an earlier launcher has started. Raises Unavailable."""
        return self._local.adopt(identity, address=address)

    def close(self) -> None:
        """End the server, and with it all processes that it forked and no keeper inherits."""
        self._closing.set()
        self._server.terminate(GRACE_SECONDS)

    @property
    def _socket(self) -> Path:
        return Path(self._server.address.removeprefix("unix:"))

    def _start(self) -> LocalProcess:
        launcher = LocalLauncher(leaves_children=self._keeper is not None)
        return launcher.run(self._command, env=self._env, log_path=self._log_path)

    def _await_server(self) -> None:
        """Start the server again if it has ended, and wait until it listens."""
        with self._restarting:
            if self._server.poll() is not None and not self._closing.is_set():
                self._server = self._start()
        give_up_at = monotonic() + self._wait_seconds
        while not self.is_ready and self._server.poll() is None and monotonic() < give_up_at:
            self._closing.wait(POLL_SECONDS)
        if self._closing.is_set():
            raise Unavailable("nothing is started any more: this process ends")

    def _fork(
        self, asked: Mapping[str, object], log_path: Path
    ) -> tuple[int, socket.socket] | None:
        """Return the guard of what is asked for, and its connection; None without a server."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asked).encode() + b"\n"
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(ANSWER_SECONDS)
        with log_path.open("ab") as log:
            try:
                connection.connect(str(self._socket))
                sent = socket.send_fds(connection, [line], [log.fileno()])
                connection.sendall(line[sent:])
                pid = _number(connection)
            except OSError:
                pid = None
        if pid is None:
            connection.close()
            return None
        return pid, connection


class ForkedProcess:
    """A process that a server has forked, under its process guard."""

    def __init__(self, pid: int, connection: socket.socket, *, address: str, is_kept: bool) -> None:
        """`connection` brings the status. While it is open, the guard `pid` runs."""
        self._pid, self._connection, self._address = pid, connection, address
        self._is_kept = is_kept
        self._waiting = threading.Lock()
        self._status: int | None = None

    @property
    def name(self) -> str:
        return f"pid {self._pid}"

    @property
    def address(self) -> str:
        return self._address

    @property
    def identity(self) -> Identity | None:
        """None of a process that ends with the server: no later launcher finds it."""
        return Identity.of(self._pid) if self._is_kept and self.poll() is None else None

    def poll(self) -> int | None:
        return self.wait(timeout=0)

    def wait(self, timeout: float | None = None) -> int | None:
        with self._waiting:
            if self._status is None:
                self._connection.settimeout(timeout)
                try:
                    status = _number(self._connection)
                except (BlockingIOError, TimeoutError):
                    return None
                except OSError:
                    status = None
                self._ended(status)
            return self._status

    def _ended(self, status: int | None) -> None:
        if status is None:
            # The guard was killed; the kernel has killed its child with it.
            process_guard.kill_group(self._pid)
        self._status = -signal.SIGKILL if status is None else status
        self._connection.close()
        if self._address.startswith("unix:"):
            Path(self._address.removeprefix("unix:")).unlink(missing_ok=True)

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
