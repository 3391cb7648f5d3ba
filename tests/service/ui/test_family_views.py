"""A family says how far its projection is, and which command comes next."""

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.catalog import projections
from registry.database.tables import Projection
from service.ui import family_views
from tests import factories


def request(session: Session, *, documents_digest: str) -> Projection:
    return projections.request(
        session,
        family="tiny",
        documents_digest=documents_digest,
        embedder_digest="e" * 64,
        training={},
    )


def test_a_family_tells_its_projection_and_the_next_command(
    session: Session, blobs: BlobStore
) -> None:
    family = factories.make_family(session, blobs)
    [view] = family_views.views(session, [family])
    assert view.projections == ("none",)
    assert view.command == "nexusmix family add FOLDER --name tiny --license Apache-2.0"
    first = request(session, documents_digest="d" * 64)
    [view] = family_views.views(session, [family])
    assert (view.projections, view.command) == (("tiny@1 waits for a worker",), None)
    projections.mark_training(session, first)
    [view] = family_views.views(session, [family])
    assert view.projections == ("tiny@1 learning, 0 %",)
    metrics = {"domains": ["law", "code"]}
    projections.mark_ready(session, first, manifest_digest="m" * 64, metrics=metrics)
    factories.make_version(session, factories.make_expert(session, family, name="law"), blobs)
    [view] = family_views.views(session, [family])
    assert view.projections == ("tiny@1 ready, learned from law, code",)
    assert (view.command, view.can_learn_again) == (None, True)

    second = request(session, documents_digest="f" * 64)
    projections.mark_failed(session, second, error="the disk is full")
    [view] = family_views.views(session, [family])
    assert view.projections[0] == "tiny@2 failed: the disk is full"
    assert view.projections[1].startswith("tiny@1 ready")
