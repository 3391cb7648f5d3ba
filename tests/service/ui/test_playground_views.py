"""Served models with the experts that may speak in them."""

from engine.serving import deployments, sleeping
from registry.blobs.blobs import BlobStore
from registry.database import db
from service.ui import playground_views
from service.ui.playground_views import Speaker
from tests.service.ui.speaking_engine import SHARED, SpeakingEngine, add_mix


def test_views_name_the_experts_with_version_and_license(
    family: BlobStore, engine: SpeakingEngine
) -> None:
    with db.transaction() as session:
        [view] = playground_views.views(session)
    assert (view.name, view.mix, view.is_preview, view.is_convex) == ("mine", "mine@1", False, True)
    assert not view.is_asleep
    assert view.experts == tuple(
        Speaker(name=f"expert-{number}", version=1, license="Apache-2.0") for number in (1, 2)
    )
    assert view.shared == Speaker(name=SHARED, license="Apache-2.0", about="the seed of tiny")


def test_what_is_asleep_is_listed_and_marked(family: BlobStore, engine: SpeakingEngine) -> None:
    with db.transaction() as session:
        [row] = deployments.live(session)
        assert sleeping.put_to_sleep(session, row.id)
        [view] = playground_views.views(session)
    assert (view.name, view.is_asleep) == ("mine", True)


def test_a_routed_seed_is_one_of_the_experts(family: BlobStore) -> None:
    add_mix(family, address="http://127.0.0.1:1", preset="btx")
    with db.transaction() as session:
        [view] = playground_views.views(session)
    assert [speaker.name for speaker in view.experts] == ["expert-1", "expert-2", "seed"]
    assert view.shared is None
