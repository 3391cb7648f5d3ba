"""How far a projection is comes from the events of its job."""

from sqlalchemy.orm import Session

from assembler.jobs import job_ids
from assembler.mixes import job_events
from registry.blobs.blobs import BlobStore
from registry.catalog import projections
from service.web import projection_progress
from tests import factories


def test_only_a_projection_that_is_trained_has_progress(session: Session, blobs: BlobStore) -> None:
    factories.make_family(session, blobs)
    projection = projections.request(
        session, family="tiny", documents_digest="d" * 64, embedder_digest="e" * 64, training={}
    )
    for step in (1, 3):
        data = {"what": "reading documents", "step": step, "num_steps": 9}
        job = job_ids.of_projection(projection)
        job_events.record(session, job, type="metrics", message="progress", data=data)
    assert projection_progress.find(session, projection) is None
    projections.mark_training(session, projection)
    found = projection_progress.find(session, projection)
    assert found is not None
    assert (found.stage, found.percent) == ("reading documents", 33)
