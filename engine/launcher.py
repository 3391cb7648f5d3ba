"""The one seam through which processes are started: run this command, give back a handle.

`LocalLauncher` runs them on this machine. What it starts dies with it, whole trees at a time.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from engine import keeper


class Process(Protocol):
    @property
    def pid(self) -> int:
        """Names the process in logs."""

    def poll(self) -> int | None:
        """None while it runs, then its status; a negative one is the signal that killed it."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait up to `timeout` seconds for the end; what `poll` says then."""

    def terminate(self, grace: float) -> None:
        """Ask it to end, and kill it with all it started when it has not after `grace` seconds."""


class Launcher(Protocol):
    def run(self, command: Sequence[str], *, env: Mapping[str, str], log_path: Path) -> Process:
        """Start a command with exactly this environment, its output appended to `log_path`.

        The process dies with the caller's thread: call from one that lives as long as it should.
        """


class LocalLauncher:
    """Processes on this machine, each under a keeper that leads a group of its own."""

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], log_path: Path
    ) -> "LocalProcess":
        log_path.parent.mkdir(parents=True, exist_ok=True)
        # -I -S: the keeper needs the standard library only, and starts in a few milliseconds.
        keeping = [sys.executable, "-I", "-S", str(Path(keeper.__file__)), str(os.getpid())]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*keeping, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return LocalProcess(process)


class LocalProcess:
    def __init__(self, keeper_process: "subprocess.Popen[bytes]") -> None:
        self._keeper = keeper_process

    @property
    def pid(self) -> int:
        return self._keeper.pid

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
            self._kill_group()
            self._keeper.wait()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
