"""Cache folders by a content key: each is made once, and is complete or absent."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return `folder`, filled by `make(empty_folder)` if it is not there yet.

    `make` fills a temporary folder beside it, which is renamed at the end. So a process that dies,
    or two processes with the same work, never leave an incomplete folder under the final name.
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
