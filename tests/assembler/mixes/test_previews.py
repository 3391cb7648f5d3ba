"""A mix is served from its assembly on, until its job has ended."""

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import job_events, mix_state, mixes, previews
from assembler.mixes.new_mix import NewMix
from assembler.tables import RETRIED_STATES, MixState, MixVersion
from engine.serving import deployments, model_routes
from engine.serving.tables import Deployment, DeploymentState
from registry.blobs.blobs import LocalBlobs
from registry.errors import NotFound
from tests.assembler import rows
from tests.assembler.published import assemble

WISH = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])


@pytest.fixture
def version(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    version = mixes.request(session, blobs, WISH, deploy=True, preview=True)
    assert previews.request(session, version) is None, "there is nothing to serve yet"
    assemble(session, blobs, version)
    return version


def requested(session: Session, version: MixVersion) -> Deployment:
    deployment = previews.request(session, version)
    assert deployment is not None
    return deployment


def test_the_assembled_mix_is_previewed(session: Session, version: MixVersion) -> None:
    deployment = requested(session, version)
    assert deployment.manifest_digest == version.assembled_digest
    assert deployment.names == ("mine", "mine@1")
    assert requested(session, version) is deployment


def test_a_preview_is_no_wish_without_deployment(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = mixes.request(session, blobs, WISH, preview=True)
    assemble(session, blobs, version)
    assert not version.preview
    assert previews.request(session, version) is None


def test_a_preview_can_be_wished_for_while_a_mix_is_made(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    version = mixes.request(session, blobs, WISH)
    assemble(session, blobs, version)
    assert mixes.request(session, blobs, WISH, deploy=True, preview=True) is version
    assert deployments.find_preview(session, "mine@1") is not None


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (MixState.CANCELLED, "it was cancelled"),
        (MixState.PARKED, "its job is parked"),
        (MixState.FAILED, "its job failed"),
    ],
)
def test_a_mix_that_ends_without_release_takes_its_preview_away(
    session: Session, version: MixVersion, state: MixState, reason: str
) -> None:
    deployment = requested(session, version)
    deployment.state = DeploymentState.READY
    mix_state.finish(session, version.id, state=state)
    assert deployment.state is DeploymentState.DRAINING
    with pytest.raises(NotFound, match=reason):
        model_routes.resolve(session, "mine")
    assert previews.request(session, version) is None


def test_a_refused_mix_is_previewed_no_more(session: Session, version: MixVersion) -> None:
    requested(session, version)
    mix_state.keep_report(session, version.id, digest="a" * 64)
    mix_state.finish(session, version.id, state=MixState.FAILED, error="diverges")
    with pytest.raises(NotFound, match="its gate refused it"):
        model_routes.resolve(session, "mine@1")


@pytest.mark.parametrize("state", RETRIED_STATES)
def test_a_retried_mix_is_previewed_again(
    session: Session, version: MixVersion, state: MixState
) -> None:
    first = requested(session, version)
    mix_state.finish(session, version.id, state=state)
    mix_state.retry(session, version.id)
    assert requested(session, version) is not first


def test_a_preview_starts_only_where_an_agent_is(session: Session, version: MixVersion) -> None:
    requested(session, version)
    assert not previews.is_starting(session, version)


def test_events_say_under_which_name_a_preview_answers(
    session: Session, version: MixVersion
) -> None:
    deployment = requested(session, version)
    previews.tell(session, version)
    deployment.state = DeploymentState.READY
    previews.tell(session, version)
    *_, early, late = events_of(session, version)
    assert early == "the preview of 'mine' does not answer yet; the job goes on"
    assert late == "preview answers as model 'mine'; its gate has not judged it yet"


def events_of(session: Session, version: MixVersion) -> list[str]:
    return [event.message for event in job_events.events_after(session, version.job_id)]
