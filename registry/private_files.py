"""Files that only their owner may read, whatever the umask is."""

import os
from pathlib import Path


def write_new(path: Path, data: bytes) -> bool:
    """Write a file that appears whole, with mode 0600, or not at all.

    Returns False, and changes nothing, if there is one already: another process was faster. The
    folder is made if needed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}-{os.getpid()}")
    incoming.unlink(missing_ok=True)
    try:
        with os.fdopen(
            os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(incoming, path)
    except FileExistsError:
        return False
    finally:
        incoming.unlink(missing_ok=True)
    return True


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, and the folders above it as usual.

    One that is there is closed to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Take the rights of group and others from a file or folder, if they have any."""
    mode = path.stat().st_mode
    if mode & 0o077:
        path.chmod(mode & 0o700)
