"""Artifacts are published once and listed newest first."""

import pytest
from sqlalchemy.orm import Session

from registry.catalog import artifacts
from registry.database.tables import Artifact
from registry.errors import NotFound


def publish(session: Session, manifest: str) -> Artifact:
    return artifacts.register(
        session,
        manifest_digest=manifest * 64,
        recipe={"experts": ["a@1", "b@2"]},
        recipe_digest="r" * 64,
        gate_report_digest="g" * 64,
    )


def test_publishing_twice_gives_one_artifact(session: Session) -> None:
    first = publish(session, "a")
    assert publish(session, "a").id == first.id
    assert artifacts.get(session, first.id).recipe == {"experts": ["a@1", "b@2"]}


def test_pages(session: Session) -> None:
    ids = [publish(session, name).id for name in "abc"]
    assert [artifact.id for artifact in artifacts.find_page(session, limit=2)] == ids[:0:-1]
    assert [artifact.id for artifact in artifacts.find_page(session, before=ids[1])] == ids[:1]


def test_unknown_artifact(session: Session) -> None:
    with pytest.raises(NotFound, match="no artifact 7"):
        artifacts.get(session, 7)
