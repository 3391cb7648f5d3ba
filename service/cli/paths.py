"""Check paths that a command gets, before it works for minutes: one sentence for each mistake."""

import os
from pathlib import Path

from registry.errors import Conflict, InvalidInput


def check_new_folder(folder: Path) -> None:
    """Check that a folder can be made. Raises Conflict if it exists, InvalidInput if it cannot."""
    if folder.exists():
        raise Conflict(f"{folder} exists already")
    above = folder.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise InvalidInput(f"{folder} cannot be made: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InvalidInput(f"{folder} cannot be made: {above} may not be written to")


def check_new_file(path: Path | None) -> None:
    """Check that a file can be written; None is an option that was not given.

    Raises InvalidInput.
    """
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder: name a file")
    if not folder.is_dir():
        raise InvalidInput(f"{path} cannot be written: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"{path} may not be written")


def is_path(argument: str) -> bool:
    """Return whether an argument names a folder, and not a mix or an expert.

    No name has a slash, so what has one is a path even where nothing is there.
    """
    return "/" in argument or Path(argument).exists()
