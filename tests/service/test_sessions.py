"""Sessions of browsers, and links that begin one."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from registry.database import db
from registry.errors import Unauthenticated
from service import keys, sessions
from service.tables import BrowserSession, SignInLink


@pytest.fixture
def key_id(session: Session) -> int:
    row = keys.find(session, keys.create_key(session, name="me"))
    session.commit()
    return row.id


def test_only_digests_are_stored(session: Session, key_id: int) -> None:
    link, word = sessions.create_link(session, key_id), sessions.begin(session, key_id)
    assert link.word not in session.query(SignInLink).one().sha256
    assert word not in session.query(BrowserSession).one().sha256


def test_a_link_works_once(session: Session, key_id: int) -> None:
    link = sessions.create_link(session, key_id)
    word = sessions.redeem(session, link.word)
    assert sessions.key_of(session, word) == key_id
    with pytest.raises(Unauthenticated, match="used already"):
        sessions.redeem(session, link.word)
    with pytest.raises(Unauthenticated):
        sessions.redeem(session, "")


def test_of_two_uses_at_once_one_signs_in(session: Session, key_id: int) -> None:
    link = sessions.create_link(session, key_id)
    session.commit()

    def redeem(_: int) -> bool:
        with db.transaction() as own:
            try:
                sessions.redeem(own, link.word)
            except Unauthenticated:
                return False
            return True

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(redeem, range(8))) == 1


def test_a_link_ends_by_itself(session: Session, key_id: int) -> None:
    link = sessions.create_link(session, key_id)
    session.query(SignInLink).one().expires_at = datetime.now(UTC)
    session.flush()
    with pytest.raises(Unauthenticated, match="too old"):
        sessions.redeem(session, link.word)


def test_a_session_ends_by_itself(session: Session, key_id: int) -> None:
    word = sessions.begin(session, key_id)
    session.query(BrowserSession).one().expires_at = datetime.now(UTC)
    session.flush()
    with pytest.raises(Unauthenticated, match="ended"):
        sessions.key_of(session, word)


def test_a_session_is_ended(session: Session, key_id: int) -> None:
    ended, other = sessions.begin(session, key_id), sessions.begin(session, key_id)
    sessions.end(session, ended)
    sessions.end(session, ended)
    with pytest.raises(Unauthenticated):
        sessions.key_of(session, ended)
    assert sessions.key_of(session, other) == key_id


def test_old_rows_are_removed(session: Session, key_id: int) -> None:
    for _ in range(2):
        session.execute(update(BrowserSession).values(expires_at=datetime.now(UTC)))
        session.execute(update(SignInLink).values(expires_at=datetime.now(UTC)))
        sessions.begin(session, key_id)
        sessions.create_link(session, key_id)
    assert session.query(BrowserSession).count() == 1
    assert session.query(SignInLink).count() == 1
