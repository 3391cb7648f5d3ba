"""Projections are numbered within their family; equal inputs give one projection."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import projections
from registry.database.tables import Family, Projection, ProjectionState
from registry.errors import Conflict, NotFound
from tests import factories


@pytest.fixture
def family(session: Session, blobs: LocalBlobs) -> Family:
    return factories.make_family(session, blobs)


def request(session: Session, **changes: Any) -> Projection:
    inputs = {
        "family": "tiny",
        "documents_digest": "d" * 64,
        "embedder_digest": "e" * 64,
        "training": {"steps": 300},
    }
    return projections.request(session, **{**inputs, **changes})


def test_the_same_inputs_give_the_same_projection(session: Session, family: Family) -> None:
    first = request(session)
    assert request(session) is first
    assert projections.ref_of(first) == "tiny@1"


@pytest.mark.parametrize(
    "change",
    [{"documents_digest": "f" * 64}, {"embedder_digest": "f" * 64}, {"training": {"steps": 1}}],
)
def test_other_inputs_give_another_projection(
    session: Session, family: Family, change: dict[str, Any]
) -> None:
    request(session)
    assert request(session, **change).number == 2


def test_each_family_has_its_own_numbers(
    session: Session, family: Family, blobs: LocalBlobs
) -> None:
    request(session)
    factories.make_family(session, blobs, name="other")
    assert projections.ref_of(request(session, family="other")) == "other@1"


def test_only_ready_projections_can_be_pinned(session: Session, family: Family) -> None:
    with pytest.raises(Conflict, match="train one first"):
        projections.pin(session, "tiny")
    first, second = request(session), request(session, training={})
    with pytest.raises(Conflict, match="no projection that is ready; tiny@2 is queued"):
        projections.pin(session, "tiny")
    projections.mark_ready(session, first, manifest_digest="m" * 64, metrics={"loss": 1.0})
    assert projections.pin(session, "tiny") is projections.pin(session, "tiny@1") is first
    with pytest.raises(Conflict, match="tiny@2 is queued, not ready"):
        projections.pin(session, "tiny@2")
    projections.mark_ready(session, second, manifest_digest="m" * 64, metrics={})
    assert projections.pin(session, "tiny") is second
    with pytest.raises(NotFound):
        projections.pin(session, "tiny@3")


def test_a_failed_projection_is_queued_again(session: Session, family: Family) -> None:
    projection = request(session)
    projections.mark_training(session, projection)
    projections.mark_failed(session, projection, error="out of memory")
    assert request(session) is projection
    assert (projection.state, projection.error) == (ProjectionState.QUEUED, None)


def test_a_projection_is_found_by_its_id(session: Session, family: Family) -> None:
    made = request(session)
    session.expunge_all()
    assert projections.get(session, made.id).family.name == "tiny"
    with pytest.raises(NotFound):
        projections.get(session, made.id + 1)
