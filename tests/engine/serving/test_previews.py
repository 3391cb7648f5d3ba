"""Previews without an agent: their names, and how they become releases or end."""

import pytest
from sqlalchemy.orm import Session

from engine.serving import deployments, model_routes, previews
from engine.serving.tables import Deployment, DeploymentState
from registry.database.tables import Artifact
from registry.errors import NotFound, Unavailable

RELEASE, PREVIEW = "http://127.0.0.1:1", "http://127.0.0.1:2"


def make_ready(session: Session, deployment: Deployment, *, address: str) -> Deployment:
    deployment.state = DeploymentState.STARTING
    session.flush()
    deployments.mark_ready(session, deployment.id, address=address)
    return deployment


def preview_of(session: Session, artifact: Artifact, *, ref: str = "m@2") -> Deployment:
    return previews.request(session, artifact.manifest_digest, model="m", ref=ref)


def test_a_preview_answers_under_both_names(session: Session, artifact: Artifact) -> None:
    preview = preview_of(session, artifact)
    with pytest.raises(Unavailable, match="starting"):
        model_routes.resolve(session, "m")
    make_ready(session, preview, address=PREVIEW)
    assert model_routes.resolve(session, "m") == (PREVIEW, True)
    assert model_routes.resolve(session, "m@2") == (PREVIEW, True)
    assert model_routes.available(session) == {"m": preview}
    assert preview_of(session, artifact) is preview


def test_a_preview_does_not_displace_a_release(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    release = deployments.request(session, artifact, model="m", ref="m@1")
    make_ready(session, release, address=RELEASE)
    preview = make_ready(session, preview_of(session, other), address=PREVIEW)
    assert model_routes.resolve(session, "m") == (RELEASE, False)
    assert model_routes.resolve(session, "m@2") == (PREVIEW, True)
    assert model_routes.available(session) == {"m": release, "m@2": preview}
    # Its engine has died: the preview does not take the name meanwhile.
    deployments.advance(session, release.id, release.state, DeploymentState.REQUESTED, num_starts=1)
    with pytest.raises(Unavailable):
        model_routes.resolve(session, "m")


def test_a_preview_of_the_same_bytes_becomes_the_release(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    old = deployments.request(session, other, model="m", ref="m@1")
    make_ready(session, old, address=RELEASE)
    preview = make_ready(session, preview_of(session, artifact), address=PREVIEW)
    assert deployments.request(session, artifact, model="m", ref="m@2") is preview
    assert model_routes.resolve(session, "m") == (PREVIEW, False)
    assert model_routes.resolve(session, "m@2") == (PREVIEW, False)
    assert old.state is DeploymentState.DRAINING


def test_a_preview_that_starts_becomes_the_release(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    old = deployments.request(session, other, model="m")
    make_ready(session, old, address=RELEASE)
    preview = preview_of(session, artifact)
    assert deployments.request(session, artifact, model="m", ref="m@2") is preview
    assert model_routes.resolve(session, "m") == (RELEASE, False)
    make_ready(session, preview, address=PREVIEW)
    assert model_routes.resolve(session, "m") == (PREVIEW, False)
    assert old.state is DeploymentState.DRAINING


def test_a_preview_that_starts_does_not_follow_a_later_release(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    preview = preview_of(session, artifact)
    later = deployments.request(session, other, model="m")
    make_ready(session, later, address=RELEASE)
    release = deployments.request(session, artifact, model="m", ref="m@2")
    assert release is not preview
    make_ready(session, preview, address=PREVIEW)
    make_ready(session, release, address="http://127.0.0.1:3")
    assert model_routes.resolve(session, "m") == ("http://127.0.0.1:3", False)
    assert preview.state is later.state is DeploymentState.DRAINING


def test_a_preview_replaces_a_later_release_that_restarts(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    preview = make_ready(session, preview_of(session, artifact), address=PREVIEW)
    later = deployments.request(session, other, model="m")
    make_ready(session, later, address=RELEASE)
    deployments.advance(session, later.id, later.state, DeploymentState.REQUESTED, num_starts=1)
    assert deployments.request(session, artifact, model="m", ref="m@2") is preview
    assert later.state is DeploymentState.STOPPED
    assert model_routes.resolve(session, "m") == (PREVIEW, False)


def test_a_mix_that_is_deployed_already_needs_no_preview(
    session: Session, artifact: Artifact
) -> None:
    preview = make_ready(session, preview_of(session, artifact), address=PREVIEW)
    release = deployments.request(session, artifact, model="m")
    assert deployments.request(session, artifact, model="m", ref="m@2") is release
    assert preview.state is DeploymentState.DRAINING


def test_a_preview_of_other_bytes_answers_until_the_release_does(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    preview = make_ready(session, preview_of(session, artifact), address=PREVIEW)
    release = deployments.request(session, other, model="m", ref="m@2")
    assert release is not preview
    assert model_routes.resolve(session, "m") == (PREVIEW, True)
    make_ready(session, release, address=RELEASE)
    assert model_routes.resolve(session, "m") == (RELEASE, False)
    assert preview.state is DeploymentState.DRAINING


def test_the_newest_of_two_previews_has_the_name(
    session: Session, artifact: Artifact, other: Artifact
) -> None:
    make_ready(session, preview_of(session, artifact, ref="m@1"), address=RELEASE)
    make_ready(session, preview_of(session, other, ref="m@2"), address=PREVIEW)
    assert model_routes.resolve(session, "m").address == PREVIEW
    assert model_routes.resolve(session, "m@1").address == RELEASE
    assert set(model_routes.available(session)) == {"m", "m@1"}


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_preview_that_was_taken_away_answers_why(
    session: Session, artifact: Artifact, is_ready: bool
) -> None:
    preview = preview_of(session, artifact)
    if is_ready:
        make_ready(session, preview, address=PREVIEW)
    previews.end(session, "m@2", reason="its gate refused it")
    previews.end(session, "m@2", reason="too late")
    for name in ("m", "m@2"):
        with pytest.raises(NotFound, match="preview of m@2 was taken away: its gate refused it"):
            model_routes.resolve(session, name)
