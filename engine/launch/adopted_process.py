"""A process that an earlier launcher has started, found again by what is known of it."""

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil

from engine.launch import process_guard
from registry.errors import Unavailable

# The status of a process that was not our child is lost. This one is as good as any other failure.
UNKNOWN_STATUS = 255
KILL_SECONDS = 10.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Identity:
    """A process of this machine: its id, and when it started in clock ticks after the boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """Return the identity of a running process. Raises Unavailable."""
        try:
            # The name in parentheses may hold any character. Field 22 is the time of the start.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError as error:
            raise Unavailable(f"process {pid} does not run any more") from error
        if fields[0] in "ZX":
            raise Unavailable(f"process {pid} has ended")
        return cls(pid, int(fields[19]))

    def is_running(self) -> bool:
        """Tell whether this very process runs, not another one with its id."""
        try:
            return Identity.of(self.pid) == self
        except Unavailable:
            return False


class AdoptedProcess:
    """A running process guard that is not our child, and its command."""

    def __init__(self, identity: Identity, *, address: str) -> None:
        """Raises Unavailable when the process does not run any more."""
        if not identity.is_running():
            raise Unavailable(f"process {identity.pid} does not run any more")
        self.identity = identity
        self._process = psutil.Process(identity.pid)
        self._address = address

    @property
    def name(self) -> str:
        return f"pid {self.identity.pid}"

    @property
    def address(self) -> str:
        return self._address

    def arguments(self) -> list[str]:
        """Return the command line of the guard. The guarded command stands at its end."""
        with suppress(psutil.Error):
            return self._process.cmdline()
        return []

    def poll(self) -> int | None:
        return None if self.identity.is_running() else UNKNOWN_STATUS

    def wait(self, timeout: float | None = None) -> int | None:
        # Not psutil's wait: a process that has ended stays in the table until its parent looks.
        give_up_at = None if timeout is None else monotonic() + timeout
        while self.identity.is_running():
            if give_up_at is not None and monotonic() >= give_up_at:
                return None
            sleep(POLL_SECONDS)
        return UNKNOWN_STATUS

    def cpu_seconds(self) -> float:
        return process_times(self.identity.pid)

    def terminate(self, grace: float) -> None:
        self._send(signal.SIGTERM)
        if self.wait(grace) is None:
            self._send(process_guard.KILL)
            self.wait(KILL_SECONDS)
        if self._address.startswith("unix:"):
            Path(self._address.removeprefix("unix:")).unlink(missing_ok=True)

    def _send(self, number: int) -> None:
        with suppress(psutil.Error):
            if self.identity.is_running():
                self._process.send_signal(number)


def process_times(pid: int) -> float:
    """Return the CPU seconds of all descendants of a process."""
    total = 0.0
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    return total
