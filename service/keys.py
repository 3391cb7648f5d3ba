"""API keys: made, listed and revoked here; and who sends a request with a key or a session."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.errors import Conflict, InvalidInput, NotFound, Problem, Unauthenticated
from registry.names import check_name
from service import key_format, sessions
from service.scopes import ALL_SCOPES, Scope
from service.tables import ApiKey

INSTALLATION = "installation"
# The last use of a key is written this often, not at each request.
LAST_USE_STEP = timedelta(minutes=1)
LONGEST_LIFE = timedelta(days=36_525)
# Characters of a key that lists show.
PREFIX_LENGTH = len(key_format.KEY_PREFIX) + 6


@dataclass(frozen=True)
class Caller:
    """The API key that a request was sent with, itself or through a session of a browser."""

    key_id: int
    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None

    @property
    def is_expired(self) -> bool:
        """Whether the key's time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


def create_key(
    session: Session,
    *,
    name: str,
    scopes: Collection[Scope] = ALL_SCOPES,
    expires_at: datetime | None = None,
) -> str:
    """Store a new key and return it. The key itself is stored nowhere: show it now.

    Raises InvalidInput for a name, no scope, or a time that is past or far away, and Conflict if a
    key that is good has this name.
    """
    check_name(name, at="/name")
    if not scopes:
        problem = Problem("/scopes", "name at least one scope")
        raise InvalidInput("this key could do nothing", problems=(problem,))
    _check_expiry(expires_at)
    for row in session.scalars(select(ApiKey).where(ApiKey.name == name)):
        if row.revoked_at is None and not _caller(row).is_expired:
            raise Conflict(f"key {row.id} has the name {name!r}; revoke it, or choose another")
    key = key_format.generate()
    _store(session, key, name=name, scopes=scopes, expires_at=expires_at)
    return key


def installation_key(session: Session, *, path: Path) -> str:
    """Return the key of this installation, which stands in the file `path` and may do everything.

    The first call makes the key and the file; only the file's owner can read it. Every call
    stores the key's hash, so that a new, empty database accepts the key too. Raises InvalidInput
    if the file holds no key.
    """
    key = key_format.read_or_make_file(path)
    _store(session, key, name=INSTALLATION, scopes=ALL_SCOPES, expires_at=None)
    return key


def find_all(session: Session) -> Sequence[ApiKey]:
    """Return all keys, newest first, with those that were revoked or have expired."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id.desc())).all()


def find(session: Session, key: str) -> ApiKey:
    """Return the row of a key. Raises Unauthenticated."""
    row = session.scalar(select(ApiKey).where(ApiKey.sha256 == key_format.digest(key)))
    if row is None:
        raise Unauthenticated("this API key is not known here")
    return row


def revoke(session: Session, key_id: int, *, by: Caller) -> ApiKey:
    """Revoke a key, and end its sessions. Revoking it again changes nothing.

    Raises NotFound, and Conflict for the key that asks: a mistake would lock everybody out.
    """
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"no key {key_id}")
    if key_id == by.key_id:
        raise Conflict(f"key {key_id} is the one that asks; revoke it with another key")
    if row.revoked_at is None:
        row.revoked_at = datetime.now(UTC)
        session.flush()
    sessions.end_all(session, key_id)
    return row


def find_caller(session: Session, credential: str) -> Caller:
    """Return whose key or session this is, and note its use.

    Raises Unauthenticated when it is malformed, unknown, revoked or expired.
    """
    if credential.startswith(sessions.SESSION_PREFIX):
        row = session.get_one(ApiKey, sessions.key_of(session, credential))
    else:
        row = find(session, key_format.check(credential))
    if row.revoked_at is not None:
        raise Unauthenticated("this API key was revoked")
    caller = _caller(row)
    refuse_expired(caller)
    _note_use(session, row)
    return caller


def refuse_expired(caller: Caller) -> None:
    """Raise Unauthenticated if the key's time is over."""
    if caller.is_expired:
        raise Unauthenticated(f"this API key expired at {caller.expires_at}")


def _check_expiry(expires_at: datetime | None) -> None:
    """Raise InvalidInput for a time that is past, or that no calendar may hold in UTC."""
    if expires_at is None:
        return
    if expires_at <= datetime.now(UTC):
        problem = Problem("/expires_at", f"{expires_at.isoformat()} is past")
        raise InvalidInput("this key would be expired already", problems=(problem,))
    if expires_at > datetime.now(UTC) + LONGEST_LIFE:
        problem = Problem("/expires_at", "is more than a hundred years away; null means never")
        raise InvalidInput("nobody will see this key expire", problems=(problem,))


def _caller(row: ApiKey) -> Caller:
    # A scope that a newer version has written means nothing here.
    held = frozenset(Scope(scope) for scope in row.scopes if scope in ALL_SCOPES)
    return Caller(row.id, row.name, held, row.expires_at)


def _note_use(session: Session, row: ApiKey) -> None:
    now = datetime.now(UTC)
    if row.last_used_at is None or row.last_used_at < now - LAST_USE_STEP:
        old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - LAST_USE_STEP)
        session.execute(update(ApiKey).where(ApiKey.id == row.id, old).values(last_used_at=now))


def _store(
    session: Session,
    key: str,
    *,
    name: str,
    scopes: Collection[Scope],
    expires_at: datetime | None,
) -> None:
    row = {
        "name": name,
        "prefix": key[:PREFIX_LENGTH],
        "sha256": key_format.digest(key),
        "scopes": sorted(set(scopes)),
        "expires_at": expires_at,
    }
    session.execute(insert(ApiKey).values(row).on_conflict_do_nothing())
