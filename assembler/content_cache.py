"""Folders that can be made again: made once under a content key, whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make(empty_folder)` if it is not there yet.

    The work happens in a folder beside it and a rename ends it, so a process that dies, or two
    that do the same work at once, never leave a half-filled folder under the final name.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        make(workspace)
        # mkdtemp is private to its user; the result follows the umask like any other folder.
        workspace.chmod(0o777 & ~_umask())
        try:
            workspace.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return folder


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
