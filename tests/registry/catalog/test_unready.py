"""Uploads that were never ready end some time after their announcement."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import unready
from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from registry.settings import settings
from tests import factories

REFUSED = (VersionState.UPLOADING, VersionState.FAILED)


@pytest.fixture
def family(session: Session, blobs: LocalBlobs) -> Family:
    return factories.make_family(session, blobs)


def add(session: Session, family: Family, blobs: LocalBlobs, state: VersionState) -> ExpertVersion:
    """Add a version that was announced a second too long ago."""
    expert = factories.make_expert(session, family, name=f"{state}-expert")
    version = factories.make_version(session, expert, blobs, state=state)
    version.created_at = long_ago()
    session.flush()
    return version


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=settings().upload_days, seconds=1)


@pytest.mark.parametrize("state", REFUSED)
def test_an_upload_that_was_never_ready_is_deleted_with_its_expert(
    session: Session, blobs: LocalBlobs, family: Family, state: VersionState
) -> None:
    version = add(session, family, blobs, state)
    assert unready.until(version) == version.created_at + timedelta(days=settings().upload_days)
    assert unready.is_over(version)
    assert unready.num_expired(session) == 1
    assert unready.remove_expired(session) == 1
    assert (session.query(ExpertVersion).count(), session.query(Expert).count()) == (0, 0)
    assert session.query(Family).one().name == family.name
    assert unready.num_expired(session) == 0


def test_a_failed_version_can_be_retried_until_then(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    version = add(session, family, blobs, VersionState.FAILED)
    version.created_at += timedelta(minutes=1)
    session.flush()
    assert not unready.is_over(version)
    assert unready.remove_expired(session) == 0


@pytest.mark.parametrize(
    "state", [VersionState.CHECKING, VersionState.EMBEDDING, VersionState.READY]
)
def test_what_is_in_work_or_ready_does_not_end(
    session: Session, blobs: LocalBlobs, family: Family, state: VersionState
) -> None:
    version = add(session, family, blobs, state)
    assert unready.until(version) is None
    assert unready.remove_expired(session) == 0


def test_what_was_ready_once_does_not_end(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    version = add(session, family, blobs, VersionState.FAILED)
    version.ready_at = datetime.now(UTC)
    session.flush()
    assert unready.until(version) is None
    assert unready.remove_expired(session) == 0


def test_an_expert_with_another_version_stays(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    version = add(session, family, blobs, VersionState.FAILED)
    other = factories.make_version(session, version.expert, blobs, number=2, tiny_expert=2)
    assert unready.remove_expired(session) == 1
    assert session.query(ExpertVersion).all() == [other]


def test_a_refused_seed_is_deleted_unless_it_is_used(
    session: Session, blobs: LocalBlobs, family: Family
) -> None:
    family.state, family.created_at = VersionState.FAILED, long_ago()
    expert = factories.make_expert(session, family, name="law")
    version = factories.make_version(session, expert, blobs)
    assert unready.num_expired(session) == 0
    version.state, version.ready_at = VersionState.FAILED, None
    session.flush()
    assert unready.num_expired(session) == unready.remove_expired(session) == 1
    assert (session.query(Family).count(), session.query(Expert).count()) == (0, 0)
