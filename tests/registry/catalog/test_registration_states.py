"""States of families, versions and projections: what moves them on, what fails and what is retried.

Covers: experts, families, projections, uploads.
"""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import experts, families, projections, uploads
from registry.checkpoints import manifests
from registry.database.tables import (
    Expert,
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)
from registry.errors import Conflict, NotFound
from tests import factories, tiny
from tests.registry.catalog.uploading import (
    begin_expert,
    begin_family,
    complete_expert,
    complete_family,
    send_checkpoint,
    send_documents,
)

REASON = "its process was killed by signal 9"


@pytest.fixture
def family(session: Session, blobs: LocalBlobs) -> Family:
    return factories.make_family(session, blobs)


@pytest.fixture
def law(session: Session, family: Family) -> Expert:
    return factories.make_expert(session, family, name="law")


def version_in(
    session: Session, blobs: LocalBlobs, law: Expert, state: VersionState
) -> ExpertVersion:
    return factories.make_version(session, law, blobs, state=state)


def test_a_version_becomes_ready_step_by_step(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version = version_in(session, blobs, law, VersionState.CHECKING)
    experts.mark_embedded(session, version.id)
    assert version.state is VersionState.CHECKING
    experts.mark_checked(session, version.id)
    assert (version.state, version.ready_at) == (VersionState.EMBEDDING, None)
    with pytest.raises(Conflict, match="law@1 is embedding, not ready"):
        experts.pin(session, "law@1")
    experts.mark_embedded(session, version.id)
    assert experts.pin(session, "law") is version
    assert version.ready_at is not None


def test_a_version_that_failed_says_why_and_can_be_retried(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version = version_in(session, blobs, law, VersionState.EMBEDDING)
    experts.note(session, version.id, error="the store is away")
    assert (version.state, version.error) == (VersionState.EMBEDDING, "the store is away")
    experts.mark_failed(session, version.id, error=REASON)
    for ref in ("law", "law@1"):
        with pytest.raises(Conflict, match=f"law@1 is failed, not ready: {REASON}"):
            experts.pin(session, ref)
    retried = experts.retry(session, expert="law", number=1)
    assert (retried.state, retried.error) == (VersionState.CHECKING, None)
    assert retried.num_retries == 1
    assert experts.retry(session, expert="law", number=1).num_retries == 1


def test_announcing_a_failed_version_again_tries_again(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    begin_expert(session, blobs)
    send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    for num_retries in range(3):
        upload = begin_expert(session, blobs)
        version = complete_expert(session, blobs)
        assert upload.version is version
        assert (version.state, version.num_retries) == (VersionState.CHECKING, num_retries)
        experts.mark_failed(session, version.id, error=REASON)


@pytest.mark.parametrize("state", [VersionState.READY, VersionState.UPLOADING])
def test_a_late_failure_changes_nothing(
    session: Session, blobs: LocalBlobs, law: Expert, state: VersionState
) -> None:
    version = version_in(session, blobs, law, state)
    experts.mark_failed(session, version.id, error=REASON)
    assert (version.state, version.error) == (state, None)


def test_a_version_that_is_uploading_cannot_be_retried(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version_in(session, blobs, law, VersionState.UPLOADING)
    with pytest.raises(Conflict, match="register it again"):
        experts.retry(session, expert="law", number=1)


def test_each_version_has_its_own_license(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    begin_expert(session, blobs, license="MIT", description="statutes")
    begin_expert(session, blobs, number=2, license="CC-BY-NC-4.0", description="and cases")
    one, two = (experts.find_version(session, expert="law", number=n) for n in (1, 2))
    assert (one.license, one.description) == ("MIT", "statutes")
    assert (two.license, two.description) == ("CC-BY-NC-4.0", "and cases")
    assert one.expert.license == "MIT"
    for version in (two, one):
        version.state = VersionState.EMBEDDING
        session.flush()
        experts.mark_embedded(session, version.id)
    assert (one.expert.license, one.expert.description) == ("CC-BY-NC-4.0", "and cases")


def test_a_ready_version_keeps_its_license(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    version = begin_expert(session, blobs, license="MIT").version
    assert begin_expert(session, blobs, license="CC0-1.0").version.license == "CC0-1.0"
    version.state = VersionState.EMBEDDING
    session.flush()
    experts.mark_embedded(session, version.id)
    with pytest.raises(Conflict, match=r"this very checkpoint, under license 'CC0-1\.0'"):
        begin_expert(session, blobs, license="MIT")
    begin_expert(session, blobs, license="CC0-1.0", description="all of it")
    assert (version.description, version.expert.description) == ("all of it", "all of it")


def test_a_seed_that_was_refused_is_replaced_under_the_same_name(
    session: Session, blobs: LocalBlobs
) -> None:
    first = begin_family(session, blobs).family
    send_checkpoint(session, blobs)
    complete_family(session, blobs)
    families.mark_failed(session, first.id, error="tokenizer.json is no tokenizer")
    with pytest.raises(Conflict, match=r"is failed, not ready: tokenizer\.json is no"):
        families.find_ready(session, "tiny")
    begun = begin_family(session, blobs, config=tiny.config() | {"rms_norm_eps": 1e-6})
    assert (begun.family.state, begun.family.error) == (VersionState.UPLOADING, None)
    again = complete_family(session, blobs)
    families.mark_ready(session, again.id, seed_digest=first.seed_digest)
    assert families.find_ready(session, "tiny") is again


def test_a_late_check_of_a_replaced_seed_changes_nothing(
    session: Session, blobs: LocalBlobs
) -> None:
    family = begin_family(session, blobs).family
    checked = family.seed_digest
    begin_family(session, blobs, config=tiny.config() | {"rms_norm_eps": 1e-6})
    send_checkpoint(session, blobs)
    complete_family(session, blobs)
    families.mark_ready(session, family.id, seed_digest=checked)
    assert family.state is VersionState.CHECKING


def test_a_replaced_seed_takes_its_projections_along(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    make_projection(session)
    begin_family(session, blobs, config=tiny.config() | {"rms_norm_eps": 1e-6})
    assert projections.find_all(session, family="tiny") == []


def test_a_family_that_failed_is_retried(session: Session, blobs: LocalBlobs) -> None:
    family = begin_family(session, blobs).family
    with pytest.raises(Conflict, match="was not sent completely"):
        families.retry(session, "tiny")
    family.state, family.error = VersionState.FAILED, REASON
    session.flush()
    retried = families.retry(session, "tiny")
    assert (retried.state, retried.error) == (VersionState.CHECKING, None)
    assert retried.num_retries == 1


def test_a_family_without_experts_is_deleted(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    make_projection(session)
    families.delete_family(session, "tiny")
    with pytest.raises(NotFound):
        families.find(session, "tiny")


@pytest.mark.parametrize(
    "state", [state for state in VersionState if state is not VersionState.FAILED]
)
def test_a_family_with_an_expert_is_kept(
    session: Session, blobs: LocalBlobs, law: Expert, state: VersionState
) -> None:
    version_in(session, blobs, law, state)
    with pytest.raises(Conflict, match="family 'tiny' is used by law"):
        families.delete_family(session, "tiny")


def test_experts_that_only_failed_go_with_their_family(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version_in(session, blobs, law, VersionState.FAILED)
    families.delete_family(session, "tiny")
    with pytest.raises(NotFound):
        experts.find(session, "law")


def test_a_version_that_was_ready_before_it_failed_is_kept(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version = version_in(session, blobs, law, VersionState.READY)
    experts.mark_outdated(session, [version.id])
    experts.mark_failed(session, version.id, error=REASON)
    assert version.state is VersionState.FAILED
    with pytest.raises(Conflict, match="used by law"):
        families.delete_family(session, "tiny")


def test_a_name_of_which_all_failed_moves_to_another_family(
    session: Session, blobs: LocalBlobs, law: Expert
) -> None:
    version_in(session, blobs, law, VersionState.FAILED)
    factories.make_family(session, blobs, name="other")
    moved = begin_expert(session, blobs, family="other").version
    assert (moved.expert.family.name, moved.number) == ("other", 1)


def test_an_expert_that_fits_only_the_seed_before_is_refused(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    version = begin_expert(session, blobs).version
    send_checkpoint(session, blobs, expert=1)
    send_documents(session, blobs, expert=1)
    seed = manifests.load(blobs, family.seed_digest)
    seed.config["rms_norm_eps"] = 1e-6
    family.seed_digest = put_bytes(blobs, seed.to_json())
    with pytest.raises(Exception, match="does not fit its family"):
        uploads.check_expert_version(blobs, version)


@pytest.mark.parametrize("again", ["request", "retry"])
def test_a_projection_that_failed_is_trained_again(
    session: Session, family: Family, again: str
) -> None:
    projection = make_projection(session)
    projections.mark_failed(session, projection, error=REASON)
    repeats: dict[str, Callable[[], Projection]] = {
        "request": lambda: make_projection(session),
        "retry": lambda: projections.retry(session, family="tiny", number=1),
    }
    assert repeats[again]() is projection
    assert (projection.state, projection.error) == (ProjectionState.QUEUED, None)
    assert projection.num_retries == 1
    projections.note(session, projection, error="the store is away")
    assert repeats[again]().num_retries == 1
    assert projection.error == "the store is away"


def make_projection(session: Session) -> Projection:
    return projections.request(
        session, family="tiny", documents_digest="d" * 64, embedder_digest="e" * 64, training={}
    )
