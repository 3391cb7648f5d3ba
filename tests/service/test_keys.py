"""Making, listing and revoking API keys, and finding who sends one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from registry.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from service import keys, sessions
from service.keys import Caller
from service.scopes import ALL_SCOPES, Scope
from service.tables import ApiKey

SOON = timedelta(minutes=5)


def caller(session: Session, *, name: str = "admin") -> Caller:
    return keys.find_caller(session, keys.create_key(session, name=name))


def test_only_the_digest_of_a_key_is_stored(session: Session) -> None:
    key = keys.create_key(session, name="me", scopes=[Scope.READ])
    row = keys.find(session, key)
    assert key not in (row.sha256, row.prefix)
    assert key.startswith(row.prefix)
    assert keys.find_caller(session, key) == Caller(row.id, "me", frozenset({Scope.READ}))


def test_unknown_malformed_and_revoked_keys_are_refused(session: Session) -> None:
    key = keys.create_key(session, name="me")
    keys.revoke(session, keys.find(session, key).id, by=caller(session))
    other = keys.create_key(session, name="other")
    session.query(ApiKey).filter_by(name="other").delete()
    for refused, why in ((key, "revoked"), (other, "not known"), ("nxm_guess", "no API key")):
        with pytest.raises(Unauthenticated, match=why):
            keys.find_caller(session, refused)


def test_a_mistyped_key_does_not_reach_the_database(session: Session) -> None:
    key = keys.create_key(session, name="me")
    statements: list[str] = []
    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with pytest.raises(Unauthenticated):
        keys.find_caller(session, key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert statements == []


def test_a_key_ends_at_its_time(session: Session) -> None:
    key = keys.create_key(session, name="me", expires_at=datetime.now(UTC) + SOON)
    assert not keys.find_caller(session, key).is_expired
    keys.find(session, key).expires_at = datetime.now(UTC)
    with pytest.raises(Unauthenticated, match="expired"):
        keys.find_caller(session, key)


def test_the_last_use_is_noted_once_a_minute(session: Session) -> None:
    key = keys.create_key(session, name="me")
    row = keys.find(session, key)
    assert row.last_used_at is None
    keys.find_caller(session, key)
    session.refresh(row)
    first = row.last_used_at
    assert first is not None
    keys.find_caller(session, key)
    session.refresh(row)
    assert row.last_used_at == first
    row.last_used_at = first - keys.LAST_USE_STEP
    session.flush()
    keys.find_caller(session, key)
    session.refresh(row)
    assert row.last_used_at > first - keys.LAST_USE_STEP


def test_a_name_belongs_to_one_good_key(session: Session) -> None:
    key = keys.create_key(session, name="app")
    with pytest.raises(Conflict, match="has the name 'app'"):
        keys.create_key(session, name="app")
    keys.revoke(session, keys.find(session, key).id, by=caller(session))
    assert keys.create_key(session, name="app") != key


def test_useless_keys_are_refused(session: Session) -> None:
    with pytest.raises(InvalidInput, match="name"):
        keys.create_key(session, name="My key")
    with pytest.raises(InvalidInput, match="do nothing"):
        keys.create_key(session, name="app", scopes=[])
    with pytest.raises(InvalidInput, match="expired already"):
        keys.create_key(session, name="app", expires_at=datetime.now(UTC))
    assert keys.find_all(session) == []


def test_nobody_revokes_the_key_in_hand(session: Session) -> None:
    me = caller(session)
    with pytest.raises(Conflict, match="the one that asks"):
        keys.revoke(session, me.key_id, by=me)
    with pytest.raises(NotFound, match="no key 99"):
        keys.revoke(session, 99, by=me)


def test_a_key_takes_its_sessions_along(session: Session) -> None:
    me, other = caller(session), caller(session, name="other")
    word, link = sessions.begin(session, other.key_id), sessions.create_link(session, other.key_id)
    assert keys.find_caller(session, word) == other
    revoked = keys.revoke(session, other.key_id, by=me)
    assert keys.revoke(session, other.key_id, by=me).revoked_at == revoked.revoked_at
    with pytest.raises(Unauthenticated, match="session has ended"):
        keys.find_caller(session, word)
    with pytest.raises(Unauthenticated):
        sessions.redeem(session, link.word)


def test_a_session_ends_with_the_time_of_its_key(session: Session) -> None:
    key = keys.create_key(session, name="me", expires_at=datetime.now(UTC) + SOON)
    row = keys.find(session, key)
    word = sessions.begin(session, row.id)
    row.expires_at = datetime.now(UTC)
    with pytest.raises(Unauthenticated, match="expired"):
        keys.find_caller(session, word)


def test_the_installation_key_may_do_everything_in_every_database(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "api-key"
    key = keys.installation_key(session, path=path)
    assert keys.installation_key(session, path=path) == key
    session.query(ApiKey).delete()
    assert keys.installation_key(session, path=path) == key
    found = keys.find_caller(session, key)
    assert (found.name, found.scopes) == ("installation", ALL_SCOPES)


def test_a_revoked_installation_key_stays_revoked(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "api-key"
    key = keys.installation_key(session, path=path)
    keys.revoke(session, keys.find(session, key).id, by=caller(session))
    assert keys.installation_key(session, path=path) == key
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.find_caller(session, key)


def test_a_scope_of_a_newer_version_means_nothing(session: Session) -> None:
    key = keys.create_key(session, name="me", scopes=[Scope.READ])
    keys.find(session, key).scopes = ["read", "fly"]
    assert keys.find_caller(session, key).scopes == {Scope.READ}
