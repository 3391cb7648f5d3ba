"""Families are found by name and cannot be used before their seed is complete."""

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import families
from registry.database.tables import VersionState
from registry.errors import Conflict, NotFound
from tests import factories


def test_families_are_listed_by_name(session: Session, blobs: LocalBlobs) -> None:
    for name in ("b", "a"):
        factories.make_family(session, blobs, name=name)
    assert [family.name for family in families.find_all(session)] == ["a", "b"]
    assert families.find(session, "b").name == "b"
    with pytest.raises(NotFound, match="no family 'c'"):
        families.find(session, "c")


def test_a_seed_must_be_complete(session: Session, blobs: LocalBlobs) -> None:
    family = factories.make_family(session, blobs)
    assert families.find_ready(session, "tiny") is family
    family.state = VersionState.UPLOADING
    with pytest.raises(Conflict, match="'tiny' is uploading, not ready"):
        families.find_ready(session, "tiny")
