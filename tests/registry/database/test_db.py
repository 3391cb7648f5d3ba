"""A transaction commits at its end, and rolls back if the block raises."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from registry.database import db
from registry.database.tables import Family, VersionState
from registry.errors import Unavailable


def names() -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(select(Family.name)))


def family(name: str) -> Family:
    return Family(name=name, license="MIT", seed_digest="0" * 64, state=VersionState.READY)


def test_a_finished_transaction_is_committed(database: str) -> None:
    with db.transaction() as session:
        session.add(family("law"))
    assert names() == ["law"]


def test_a_transaction_that_raises_is_rolled_back(database: str) -> None:
    def add_and_fail() -> None:
        with db.transaction() as session:
            session.add(family("law"))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()
    assert names() == []


def test_rows_can_be_read_afterwards(database: str) -> None:
    with db.transaction() as session:
        row = family("law")
        session.add(row)
    assert row.name == "law"


def test_an_error_tells_no_values(session: Session) -> None:
    with pytest.raises(DataError) as error:
        session.execute(text("SELECT :secret / 0"), {"secret": 4711})
    assert "4711" not in str(error.value)


def test_without_a_database_the_error_names_the_command() -> None:
    with pytest.raises(Unavailable, match="nexusmix up"):
        db.engine()
