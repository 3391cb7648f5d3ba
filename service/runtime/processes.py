"""Keeps a process running: starts it again when it dies, after pauses that grow."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from engine.launch.launcher import LocalLauncher, LocalProcess

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# After this time a process counts as healthy, and its next pause is short again.
HEALTHY_SECONDS = 60.0
STOP_SECONDS = 20.0


class Child:
    """A long-lived process of the service, in its own process group, with its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        leaves_children: bool = False,
    ) -> None:
        """With `leaves_children` what the process starts may outlive it."""
        self.name = name
        self.log_path = log_path
        self._command = list(command)
        self._env = dict(env)
        self._leaves_children = leaves_children
        self._process: LocalProcess | None = None
        self._started_at = 0.0
        self._not_before = 0.0
        self._num_deaths = 0

    @property
    def pid(self) -> int | None:
        """The process id, None while the process does not run."""
        return None if self._process is None else self._process.pid

    def keep_running(self) -> None:
        """Start the process if it does not run and its pause is over. Call this again and again."""
        now = time.monotonic()
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self._note_death(now, status)
        if now >= self._not_before:
            self._process = LocalLauncher(leaves_children=self._leaves_children).run(
                self._command, env=self._env, log_path=self.log_path
            )
            self._started_at = now
            log.info("process started", name=self.name, pid=self._process.pid)

    def is_running(self) -> bool:
        """Tell whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM and do not wait."""
        if self._process is not None:
            self._process.ask_to_stop()

    def stop(self, grace: float = STOP_SECONDS) -> None:
        """Send SIGTERM, and after `grace` seconds SIGKILL to all of its processes."""
        if self._process is not None:
            self._process.terminate(grace)
            self._process = None

    def kill(self) -> None:
        """Send SIGKILL to all of its processes."""
        self.stop(grace=0)

    def _note_death(self, now: float, status: int) -> None:
        self._process = None
        self._num_deaths = 1 if now - self._started_at > HEALTHY_SECONDS else self._num_deaths + 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self._num_deaths - 1), LONGEST_PAUSE_SECONDS)
        self._not_before = now + pause
        log.warning(
            "process died, starting it again",
            name=self.name,
            status=status,
            pause_seconds=pause,
            log=str(self.log_path),
        )
