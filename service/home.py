"""The data folder of an installation: makes it, and locks it for one service at a time."""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from registry import private_files
from registry.errors import Conflict, OutOfSpace

MIN_FREE_BYTES = 2 * 2**30
# Tensors and documents; what is made from them; lines that may quote them.
PRIVATE = ("blobs", "cache", "logs")
# Lies in the data folder until all of a backup is restored. It has the digest of the dump.
UNFINISHED_RESTORE = "unfinished-restore"


@dataclass(frozen=True)
class Holder:
    """The service that holds a data folder: its process id and the address of its pages."""

    pid: int
    address: str


def address_of(host: str, port: int) -> str:
    """Return the address of a service that listens there. An IPv6 address is put in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def held(
    home: Path, *, address: str, min_free_bytes: int | None = None, is_restore: bool = False
) -> Iterator[None]:
    """Hold `home` for this process, and make it if needed.

    `min_free_bytes` must be free on its disk, by default MIN_FREE_BYTES. Only a restore holds a
    folder in which a restore was interrupted.

    Raises Conflict when another service holds it, and OutOfSpace when too little is free. The
    kernel drops the lock when the process ends, however it ends.
    """
    _make_private(home)
    free = shutil.disk_usage(home).free
    needed = MIN_FREE_BYTES if min_free_bytes is None else min_free_bytes
    if free < needed:
        raise OutOfSpace(
            f"{free / 2**30:.1f} GiB are free below {home}, at least "
            f"{needed / 2**30:.0f} GiB are needed; NEXUSMIX_HOME names another folder"
        )
    with _lock_path(home).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = holder(home)
            who = f"process {other.pid} at {other.address}" if other else "another process"
            raise Conflict(
                f"nexusmix runs on {home} already: {who}. Stop it, or give this one its own "
                "NEXUSMIX_HOME"
            ) from None
        if not is_restore and (home / UNFINISHED_RESTORE).exists():
            raise Conflict(
                f"a backup was being restored into {home}: run `nexusmix restore` once more, or"
                " empty the folder"
            )
        file.truncate(0)
        file.write(json.dumps(asdict(Holder(os.getpid(), address))))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _make_private(home: Path) -> None:
    """Make the data folder, and let only its owner enter what lies in it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The embedded database of root runs under another account, which must pass through `home`. It
    # cannot enter any other folder there, nor list this one.
    passage = stat.S_IXOTH if os.geteuid() == 0 else 0
    home.chmod(home.stat().st_mode & (stat.S_IRWXU | passage))
    for name in PRIVATE:
        private_files.make_folder(home / name)


def holder(home: Path) -> Holder | None:
    """Return the service that holds `home`, or None."""
    try:
        with _lock_path(home).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Holder(**json.loads(file.read()))
    except (FileNotFoundError, ValueError, TypeError):
        pass
    return None


def _lock_path(home: Path) -> Path:
    return home / "lock"
