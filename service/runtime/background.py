"""The whole service behind another program: started when it does not run, stopped afterwards."""

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
# Longer than the supervisor takes to stop its own children.
STOP_SECONDS = 60.0


class Service:
    """The service on the data folder: one that runs already, or a child of ours."""

    def __init__(self) -> None:
        self.log_path = settings().home / "logs" / "supervisor.log"
        self._process: Process | None = None
        if home.holder(settings().home) is None:
            command = [sys.executable, "-m", "service.runtime.supervisor"]
            self._process = LocalLauncher().run(command, env=os.environ, log_path=self.log_path)

    def wait(self) -> str:
        """Its address, once its pages answer. Raises Unavailable when it ends or takes too long."""
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
        """End what was started here; a service that ran before goes on."""
        if self._process is not None:
            self._process.terminate(STOP_SECONDS)


@contextmanager
def running() -> Iterator[Service]:
    service = Service()
    try:
        yield service
    finally:
        service.stop()


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines() if log_path.exists() else []
    return f"{lines[-1] if lines else 'no word'} ({log_path})"
