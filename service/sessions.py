"""Sessions of browsers, and links that begin one: random words, of which the hash is stored.

A browser never holds an API key. A session ends after a week, when somebody signs out, and with its
key. A link works once, within minutes.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from registry.errors import Unauthenticated
from service import key_format
from service.tables import BrowserSession, SignInLink

SESSION_PREFIX = "nxs_"
LINK_PREFIX = "nxl_"
SESSION_LIFETIME = timedelta(days=7)
LINK_LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True)
class NewLink:
    """A link that was just made; `word` is stored nowhere."""

    word: str
    expires_at: datetime


def create_link(session: Session, key_id: int) -> NewLink:
    """Make a link that signs in with a key."""
    now = datetime.now(UTC)
    session.execute(delete(SignInLink).where(SignInLink.expires_at <= now))
    link = NewLink(LINK_PREFIX + secrets.token_urlsafe(32), now + LINK_LIFETIME)
    row = SignInLink(
        sha256=key_format.digest(link.word), api_key_id=key_id, expires_at=link.expires_at
    )
    session.add(row)
    session.flush()
    return link


def redeem(session: Session, word: str) -> str:
    """Use up a link, and return the id of the session that it begins. Raises Unauthenticated."""
    # Of two requests with the same link one deletes the row; the other waits, and finds none.
    used = session.execute(
        delete(SignInLink)
        .where(SignInLink.sha256 == key_format.digest(word))
        .returning(SignInLink.api_key_id, SignInLink.expires_at)
    ).one_or_none()
    if used is None or used.expires_at <= datetime.now(UTC):
        raise Unauthenticated("this link was used already, or is too old")
    return begin(session, used.api_key_id)


def begin(session: Session, key_id: int) -> str:
    """Begin a session of a key, and return its id, which only the browser keeps."""
    now = datetime.now(UTC)
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at <= now))
    word = SESSION_PREFIX + secrets.token_urlsafe(32)
    session.add(
        BrowserSession(
            sha256=key_format.digest(word), api_key_id=key_id, expires_at=now + SESSION_LIFETIME
        )
    )
    session.flush()
    return word


def key_of(session: Session, word: str) -> int:
    """Return the id of the key that a session belongs to. Raises Unauthenticated."""
    key_id = session.scalar(
        select(BrowserSession.api_key_id).where(
            BrowserSession.sha256 == key_format.digest(word),
            BrowserSession.expires_at > datetime.now(UTC),
        )
    )
    if key_id is None:
        raise Unauthenticated("this session has ended; sign in again")
    return key_id


def end(session: Session, word: str) -> None:
    """End a session; one that has ended stays so."""
    digest = key_format.digest(word)
    session.execute(delete(BrowserSession).where(BrowserSession.sha256 == digest))


def end_all(session: Session, key_id: int) -> None:
    """End all sessions of a key, and use up its links."""
    session.execute(delete(BrowserSession).where(BrowserSession.api_key_id == key_id))
    session.execute(delete(SignInLink).where(SignInLink.api_key_id == key_id))
