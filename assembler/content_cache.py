"""Cache folders by a content key: each is made once, and is complete or absent."""

import os
from collections.abc import Callable
from pathlib import Path

from registry.disk import check_room, refusing_full_disk
from registry.folders import whole_folder


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make(empty_folder)` if it is not there yet.

    `make` fills a temporary folder beside it, which is renamed at the end. So a process that dies,
    or two processes with the same work, never leave an incomplete folder under the final name.
    Raises OutOfSpace where only the reserve of the disk is left.
    """
    if folder.exists():
        # The folders that were not used for longest are removed first.
        os.utime(folder)
        return folder
    check_room(folder)
    with whole_folder(folder, may_exist=True) as unfinished, refusing_full_disk(folder):
        make(unfinished)
    return folder
