"""A service on a small disk of its own, with its tensors in a real S3 server, behind a proxy."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from registry import settings
from registry.blobs import blob_stores
from registry.database import db
from tests.assembler import rows
from tests.benchmarks.chaos.proxy import Proxy
from tests.seaweed import BUCKET, KEY, SECRET, SeaweedServer
from tests.service.services import PARTS, Service, serving

FAMILY = "tiny"
# More than the service asks for before it starts, and little enough to be filled fast.
DISK_MIB = 3072


class Installation:
    """Everything that faults reach."""

    def __init__(self, service: Service, s3: SeaweedServer, proxy: Proxy) -> None:
        self.service, self.s3, self.proxy = service, s3, proxy

    @property
    def home(self) -> Path:
        return self.service.home

    @property
    def key(self) -> str:
        return (self.home / "api-key").read_text().strip()

    def processes(self) -> list[psutil.Process]:
        """Return all processes of the service."""
        s3 = {self.s3.process.pid, *(process.pid for process in self.s3_processes())}
        return [each for each in processes_of(self.home) if each.pid not in s3]

    def find(self, part: str) -> list[psutil.Process]:
        """Return the processes of a part, now: of PostgreSQL all, of others without their guards.

        An engine may belong to the agent, or to the gate of a mix.
        """
        found = [process for process in processes_of(self.home) if _is(process, part)]
        if part == "postgres":
            # Its sessions have changed their environment.
            with suppress(psutil.Error):
                found += [child for process in found for child in process.children()]
        return found

    def signal(self, part: str, number: signal.Signals) -> int:
        """Send a signal to all processes of a part; return their number."""
        found = self.s3_processes() if part == "s3" else self.find(part)
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return len(found)

    def s3_processes(self) -> list[psutil.Process]:
        """Return the S3 server, without its guard."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.s3.process.pid).children(recursive=True)
        return []


def processes_of(home: Path) -> list[psutil.Process]:
    """Return all processes that were started for a data folder, but this one."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if process.environ().get("NEXUSMIX_HOME") == str(home) or _writes_into(process, home):
                found.append(process)
    return found


def _writes_into(process: psutil.Process, home: Path) -> bool:
    """Tell whether the output of a process is a file of the data folder.

    The title of a forked engine has overwritten its environment.
    """
    return Path(f"/proc/{process.pid}/fd/1").readlink().is_relative_to(home)


def _is(process: psutil.Process, part: str) -> bool:
    try:
        # A forked engine has all of its command in one word.
        command = " ".join(process.cmdline()).split()
    except psutil.Error:
        return False
    if part == "postgres":
        return bool(command) and command[0].endswith("/postgres")
    return command[1:3] == PARTS[part]


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """Run a service with a family of two experts and a projection, ready to be mixed.

    Settings of this process name its database and its store. `folder` has room for the S3 server,
    and below `home` the small disk, if there is one.
    """
    with ExitStack() as stack:
        s3 = stack.enter_context(SeaweedServer(folder / "s3"))
        home, temporary = folder / "home", folder / "temporary"
        temporary.mkdir(exist_ok=True)
        own = {
            "NEXUSMIX_S3_BUCKET": BUCKET,
            "NEXUSMIX_S3_ENDPOINT_URL": s3.endpoint_url,
            "NEXUSMIX_S3_ACCESS_KEY_ID": KEY,
            "NEXUSMIX_S3_SECRET_ACCESS_KEY": SECRET,
            "TMPDIR": str(temporary),
        }
        service = stack.enter_context(serving(home, own=own))
        address = service.address.removeprefix("http://")
        proxy = stack.enter_context(Proxy(address))
        stack.enter_context(_settings(home, service.database_url, own))
        with db.transaction() as session:
            rows.add_all(session, blob_stores.store())
        db.close()
        yield Installation(service, s3, proxy)


@contextmanager
def _settings(home: Path, database_url: str, own: dict[str, str]) -> Iterator[None]:
    """Let this process read and write what the service does."""
    changes = {
        "NEXUSMIX_HOME": str(home),
        "NEXUSMIX_DATABASE_URL": database_url,
        **{name: value for name, value in own.items() if name.startswith("NEXUSMIX_")},
    }
    before = dict(os.environ)
    os.environ |= changes
    _forget()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before
        _forget()


def _forget() -> None:
    settings.settings.cache_clear()
    blob_stores.store.cache_clear()
    db.close()
