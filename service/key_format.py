"""The form of API keys: 256 random bits behind a prefix, then a checksum that finds typing errors.

Keys from before the checksum have none, and stay good.
"""

import hashlib
import re
import secrets
import zlib
from pathlib import Path

from registry import private_files
from registry.errors import InvalidInput, NotFound, Unauthenticated

KEY_PREFIX = "nxm_"
KEY = re.compile(KEY_PREFIX + r"([A-Za-z0-9_-]{43})([0-9a-f]{8})?")


def generate() -> str:
    """Return a new key."""
    secret = secrets.token_urlsafe(32)
    return KEY_PREFIX + secret + _checksum(secret)


def check(key: str) -> str:
    """Return a key that has the form of one. Raises Unauthenticated, without the database."""
    found = KEY.fullmatch(key)
    if found is None or found[2] not in (None, _checksum(found[1])):
        raise Unauthenticated(
            f"this is no API key: one begins with {KEY_PREFIX} and ends in a checksum, which does"
            " not fit here; copy it again"
        )
    return key


def digest(secret: str) -> str:
    """Return the SHA-256 that stands for a key, session or link in the database.

    Each has 256 random bits, so nobody can guess it, and a slow hash would add nothing.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def read_file(path: Path) -> str:
    """Return the key in a file. Raises NotFound without the file, InvalidInput without a key."""
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        raise NotFound("this installation has no key yet; `nexusmix up` makes it") from None
    except UnicodeDecodeError:
        key = ""
    try:
        return check(key)
    except Unauthenticated:
        raise InvalidInput(
            f"{path} holds no API key; restore it from a backup, or delete it, and"
            " `nexusmix up` makes a new one"
        ) from None


def read_or_make_file(path: Path) -> str:
    """Return the key in a file, which is made if needed. Raises InvalidInput without a key in it.

    Only the owner can read the file, also if it was restored with other rights.
    """
    key = generate()
    if private_files.write_new(path, f"{key}\n".encode()):
        return key
    private_files.close_to_others(path)
    return read_file(path)


def _checksum(secret: str) -> str:
    return f"{zlib.crc32(secret.encode()):08x}"
