"""Unix sockets for servers on this machine: only the owner of the installation reaches them."""

import hashlib
import os
import secrets
import socket
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from time import time

from registry.errors import Unavailable
from registry.settings import settings

# sun_path holds 108 bytes with its final zero.
MAX_PATH_BYTES = 107
SUFFIX = ".sock"
# A server binds its socket within seconds. Older sockets without a server are left over.
BOUND_SECONDS = 600.0


def new_socket() -> Path:
    """Return an unused path for a socket, in a folder that only this user can enter.

    Raises Unavailable when another user owns the folder.
    """
    folder = _folder()
    _remove_dead(folder)
    return folder / f"{secrets.token_hex(6)}{SUFFIX}"


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass  # it listens, and is busy
        return True


def _folder() -> Path:
    """Return the folder of sockets, in the data folder unless its name is too long for that."""
    folder = settings().home.absolute() / "run"
    if len(os.fsencode(folder)) + len(f"/{secrets.token_hex(6)}{SUFFIX}") > MAX_PATH_BYTES:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"nexusmix-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    # In a folder for everybody, somebody else may have made it before.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Unavailable(f"{folder} belongs to somebody else; remove it")
    folder.chmod(0o700)
    return folder


def _remove_dead(folder: Path) -> None:
    """Remove sockets that nobody listens on, which a killed process has left."""
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            if time() > path.stat().st_mtime + BOUND_SECONDS and not _listens(path):
                path.unlink()
