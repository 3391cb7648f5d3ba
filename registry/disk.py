"""Keeps a reserve of the disk free, so that the database goes on when files have filled it.

Whatever can be large asks before it begins, and again while it grows. OutOfSpace is passing: a step
of a job waits and goes on when the disk is freed.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import OutOfSpace
from registry.settings import settings

# Bytes after which a writer looks again how much of the disk is free.
CHECK_EVERY_BYTES = 16 << 20


def reserve_on(folder: Path) -> int:
    """Return how many bytes on the disk of `folder` stay free: those of the settings on ours.

    Another disk has no database, and the machine of a client has none at all.
    """
    home = settings().home
    if not home.exists() or _nearest(folder).stat().st_dev != home.stat().st_dev:
        return 0
    return settings().disk_reserve_bytes


def check_room(folder: Path, num_bytes: int = 0, *, reserve_bytes: int | None = None) -> None:
    """Raise OutOfSpace if so many bytes do not fit on the disk of `folder` beside the reserve."""
    reserve = reserve_on(folder) if reserve_bytes is None else reserve_bytes
    free = shutil.disk_usage(_nearest(folder)).free
    if num_bytes > free - reserve:
        raise OutOfSpace(
            f"no room for {num_bytes} bytes below {folder}: {free} are free, of which"
            f" {reserve} are kept for the database; `nexusmix gc` frees what nobody needs"
        )


class Growth:
    """Checks the room of one writer below `folder` again and again."""

    def __init__(self, folder: Path, *, reserve_bytes: int | None = None) -> None:
        self._folder = folder
        self._reserve = reserve_on(folder) if reserve_bytes is None else reserve_bytes
        self._unchecked = CHECK_EVERY_BYTES

    def by(self, num_bytes: int) -> None:
        """Say that so many bytes are written next. Raises OutOfSpace."""
        if self._unchecked >= CHECK_EVERY_BYTES:
            check_room(self._folder, num_bytes, reserve_bytes=self._reserve)
            self._unchecked = 0
        self._unchecked += num_bytes


@contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into OutOfSpace, which names `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no space left below {folder}") from error
        raise


def _nearest(folder: Path) -> Path:
    """Return the nearest folder above a path that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
