"""Runs the service for another program: starts it if needed, and stops it afterwards."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.launch.launcher import LocalLauncher, Process
from registry.errors import Unavailable
from registry.settings import settings
from service import home
from service.runtime import supervisor

START_SECONDS = 120.0
POLL_SECONDS = 0.1
# The supervisor needs less to stop its own children once all answers are finished.
STOP_SECONDS = 60.0


class Service:
    """The service on the data folder: one that runs already, or a child process of this one."""

    def __init__(self) -> None:
        self.log_path = settings().home / "logs" / "supervisor.log"
        self._process: Process | None = None
        if home.holder(settings().home) is None:
            command = [sys.executable, "-m", "service.runtime.supervisor"]
            self._process = LocalLauncher().run(command, env=os.environ, log_path=self.log_path)

    def wait(self) -> str:
        """Wait until the pages answer, and return their address.

        Raises Unavailable when the service ends or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            holder = home.holder(settings().home)
            if holder is not None and supervisor.answers(holder.address):
                return holder.address
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(POLL_SECONDS)
        raise Unavailable(f"the service did not start: {_last_line(self.log_path)}")

    def stop(self) -> None:
        """Stop the service if it was started here."""
        if self._process is not None:
            self._process.terminate(settings().drain_seconds + STOP_SECONDS)


@contextmanager
def running() -> Iterator[Service]:
    """Run the service until the block ends."""
    service = Service()
    try:
        yield service
    finally:
        service.stop()


def _last_line(log_path: Path) -> str:
    """Return the last line of a log, and its path."""
    lines = log_path.read_text(errors="replace").splitlines() if log_path.exists() else []
    return f"{lines[-1] if lines else 'its log is empty'} ({log_path})"
