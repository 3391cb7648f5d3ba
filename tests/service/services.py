"""Runs the whole service as a process on its own data folder, for tests that kill its parts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psutil

from service import home as homes
from service.runtime.supervisor import answers

PATIENCE_SECONDS = 240.0
COMMAND = [sys.executable, "-m", "service.runtime.supervisor"]

# Arguments 1 and 2 of a part's process; its guard process has the same words later.
PARTS = {
    "web": ["-m", "uvicorn"],
    "worker": ["-m", "assembler.jobs.worker"],
    "agent": ["-m", "engine.serving.agent"],
    "server": ["-m", "engine.vllm_plugin.api_server"],
}


class Service:
    """A running supervisor and its descendants."""

    def __init__(self, home: Path, process: "subprocess.Popen[bytes]") -> None:
        self.home, self.process = home, process

    @property
    def address(self) -> str:
        holder = homes.holder(self.home)
        assert holder is not None, "the supervisor ended"
        return holder.address

    @property
    def database_url(self) -> str:
        return self.find("worker").environ()["NEXUSMIX_DATABASE_URL"]

    def find(self, part: str) -> psutil.Process:
        """Wait for the process of a part, and return it."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found.extend(self._matching(part))
            return bool(found)

        wait_for(there, f"a process of {part}")
        return found[0]

    def kill(self, part: str) -> None:
        process = self.find(part)
        process.kill()
        wait_for(lambda: not process.is_running(), f"the end of {part}")

    def interrupt(self) -> int:
        """Send Ctrl-C and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def _matching(self, part: str) -> Iterator[psutil.Process]:
        for process in self.descendants():
            try:
                # A forked engine has all of its command in one word.
                command = " ".join(process.cmdline()).split()
            except psutil.Error:
                continue
            if part == "postgres":
                matches = command[:1] != [] and command[0].endswith("/postgres")
            else:
                matches = command[1:3] == PARTS[part]
            if matches:
                yield process


@contextmanager
def serving(home: Path, *, own: Mapping[str, str] = MappingProxyType({})) -> Iterator[Service]:
    """Run a supervisor whose pages answer, with these variables too; kill it at the end."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            COMMAND, env=environment(home) | dict(own), stdout=output, stderr=subprocess.STDOUT
        )
    service = Service(home, process)
    try:
        wait_for(lambda: is_up(service), "the pages", log=log)
        yield service
    finally:
        process.kill()
        process.wait()


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a service with an embedded database, on any free port."""
    own = {"NEXUSMIX_HOME": str(home), "NEXUSMIX_PORT": "0", "OMP_NUM_THREADS": "1"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("NEXUSMIX_")}
    return inherited | own


def is_up(service: Service) -> bool:
    holder = homes.holder(service.home)
    return holder is not None and answers(holder.address)


def wait_for(
    condition: Callable[[], bool],
    what: str,
    *,
    seconds: float = PATIENCE_SECONDS,
    log: Path | None = None,
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = "" if log is None else log.read_text()[-4000:]
            raise AssertionError(f"waited in vain for {what}\n{tail}")
        time.sleep(0.1)
