"""API keys: made here, stored as their SHA-256.

A key has 256 random bits, so nobody can guess it, and a slow password hash would add nothing.
"""

import hashlib
import os
import secrets
from pathlib import Path

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.tables import ApiKey

KEY_PREFIX = "nxm_"


def create_key(session: Session, *, name: str) -> str:
    """Store a new key and return it. The key itself is stored nowhere: show it now."""
    key = _generate()
    _store(session, key, name=name)
    return key


def installation_key(session: Session, *, path: Path) -> str:
    """Return the key of this installation, which stands in the file `path`.

    The first call makes the key and the file; only the file's owner can read it. Every call
    stores the key's hash, so that a new, empty database accepts the key too.
    """
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = _generate()
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key + "\n")
    _store(session, key, name="installation")
    return key


def key_digest(key: str) -> str:
    """Return the SHA-256 that stands for a key in the database."""
    return hashlib.sha256(key.encode()).hexdigest()


def _generate() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def _store(session: Session, key: str, *, name: str) -> None:
    row = {"name": name, "prefix": key[: len(KEY_PREFIX) + 6], "sha256": key_digest(key)}
    session.execute(insert(ApiKey).values(row).on_conflict_do_nothing())
