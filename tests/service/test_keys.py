"""Making and storing API keys."""

import stat
from pathlib import Path

from sqlalchemy.orm import Session

from service import keys
from service.tables import ApiKey
from service.web.auth import Caller, caller_of


def test_only_the_digest_of_a_key_is_stored(session: Session) -> None:
    key = keys.create_key(session, name="me")
    row = session.query(ApiKey).one()
    assert key.startswith("nxm_")
    assert len(key) == 4 + 43
    assert key not in (row.sha256, row.prefix)
    assert caller_of(session, key) == Caller(row.id, "me")


def test_the_installation_key_is_made_once_and_private(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "api-key"
    key = keys.installation_key(session, path=path)
    assert keys.installation_key(session, path=path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    session.query(ApiKey).delete()
    assert keys.installation_key(session, path=path) == key
    assert caller_of(session, key).name == "installation"
