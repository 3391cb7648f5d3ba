"""Removes files of this host that nobody needs: half uploads, old caches, checkpoints and logs."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from registry.blobs.blobs import INCOMING, LocalBlobs

# An entry of a cache that was used in this time may be in use.
IN_USE = timedelta(hours=1)
# How deep the entries of each cache lie below its folder.
CACHES = {
    "serving": 1,
    "evaluations": 2,
    "continuations": 2,
    "noise": 2,
    "experts": 1,
    "seeds": 1,
    "corpora": 2,
    "imports": 3,
    "asked-imports": 1,
}
NUM_OLD_LOGS = 3


@dataclass(frozen=True)
class Entry:
    """A file or folder, its size in bytes, and when it was last changed or used."""

    path: Path
    num_bytes: int
    used_at: datetime

    @classmethod
    def of(cls, path: Path) -> "Entry":
        """Look at a path. Raises FileNotFoundError."""
        times, num_bytes = [path.stat().st_mtime], 0
        for folder, _, files in os.walk(path):
            for name in files:
                with suppress(FileNotFoundError):
                    status = (Path(folder) / name).stat()
                    num_bytes += status.st_size
                    times.append(status.st_mtime)
        if path.is_file():
            num_bytes = path.stat().st_size
        return cls(path, num_bytes, datetime.fromtimestamp(max(times), UTC))

    def remove(self) -> None:
        """Remove the file or the folder; it may be gone already."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def half_uploads(blobs_path: Path, *, before: datetime) -> list[Entry]:
    """Return files of uploads that nobody has written to since `before`."""
    return [entry for entry in _entries(blobs_path.glob(f"{INCOMING}*")) if entry.used_at < before]


def unfinished_folders(cache_path: Path, *, before: datetime) -> list[Entry]:
    """Return folders that a process that died was filling; see `registry.folders`."""
    hidden = (path for kind in CACHES for path in (cache_path / kind).glob("**/.*-*"))
    return [entry for entry in _entries(hidden) if entry.used_at < before]


def oldest_cached(cache_path: Path, *, max_bytes: int, keep: Collection[Path] = ()) -> list[Entry]:
    """Return the entries of the caches to remove, so that the others have at most `max_bytes`.

    Those that were not used for longest go first. Entries in `keep` and those in use stay.
    """
    found = (
        path
        for kind, depth in CACHES.items()
        for path in (cache_path / kind).glob("/".join("*" * depth))
    )
    return _beyond(list(_entries(found)), max_bytes=max_bytes, keep=keep)


def oldest_fetched(cache: LocalBlobs, *, max_bytes: int) -> list[Entry]:
    """Return the local copies of blobs of a bucket to remove, as `oldest_cached` does."""
    copies = [
        Entry(cache.local_path(blob.digest), blob.num_bytes, blob.written_at)
        for blob in cache.stored()
    ]
    return _beyond(copies, max_bytes=max_bytes)


def job_folders(cache_path: Path, *, wanted: Collection[str], before: datetime) -> list[Entry]:
    """Return the checkpoints of jobs that ended; those of `wanted` jobs may still go on."""
    return [
        entry
        for entry in _entries((cache_path / "jobs").glob("*"))
        if entry.path.name not in wanted and entry.used_at < before
    ]


def old_logs(logs_path: Path, *, wanted: Collection[Path], before: datetime) -> list[Entry]:
    """Return logs that ended before `before`; `wanted` are logs and folders that are in use."""
    found = [
        *(logs_path / "jobs").glob("*"),
        *(
            path
            for kind in ("deployments", "gate", "preparation")
            for path in (logs_path / kind).glob("*")
        ),
    ]
    return [
        entry for entry in _entries(found) if entry.path not in wanted and entry.used_at < before
    ]


def long_logs(home: Path, *, max_bytes: int) -> list[Path]:
    """Return the logs of running processes that are longer than `max_bytes`."""
    found = [
        *(home / "logs").glob("*.log"),
        *(home / "logs").glob("deployments/*.log"),
        *home.glob("*.log"),
    ]
    return sorted(path for path in found if path.stat().st_size > max_bytes)


def rotate(path: Path) -> None:
    """Move the lines of a log to `NAME.1`, what was there to `NAME.2`, and so on.

    The processes that write to it keep the file open, so its content is copied and the file is
    emptied. They append, so they go on at its beginning. Lines that are written in between are
    lost.
    """
    for number in range(NUM_OLD_LOGS - 1, 0, -1):
        with suppress(FileNotFoundError):
            _old(path, number).rename(_old(path, number + 1))
    shutil.copyfile(path, _old(path, 1))
    os.truncate(path, 0)


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _entries(paths: Iterator[Path] | list[Path]) -> Iterator[Entry]:
    for path in sorted(paths):
        with suppress(FileNotFoundError):
            yield Entry.of(path)


def _beyond(entries: list[Entry], *, max_bytes: int, keep: Collection[Path] = ()) -> list[Entry]:
    excess = sum(entry.num_bytes for entry in entries) - max_bytes
    removed = []
    for entry in sorted(entries, key=lambda entry: entry.used_at):
        if excess <= 0 or entry.used_at > datetime.now(UTC) - IN_USE:
            break
        if entry.path not in keep:
            removed.append(entry)
            excess -= entry.num_bytes
    return removed
