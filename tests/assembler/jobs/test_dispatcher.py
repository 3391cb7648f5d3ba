"""Every row that waits for a job gets exactly one.

Covers: job_ids.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from dbos import DBOSClient

from assembler.jobs import dispatcher, job_ids, queues
from assembler.mixes import mix_state, mixes
from assembler.routing.embedder import embedder_digest
from assembler.tables import MixState
from registry.blobs import blob_stores
from registry.catalog import experts, families, projections
from registry.catalog.embeddings import Embedders
from registry.database import db
from registry.database.tables import ExpertVersion, Projection, ProjectionState, VersionState
from tests.assembler import rows
from tests.assembler.job_store import empty_store, set_status, status_of
from tests.assembler.workers import request_mix, version_of


@pytest.fixture
def client(database: str) -> Iterator[DBOSClient]:
    with empty_store(database) as client:
        yield client


def ids(client: DBOSClient) -> list[str]:
    return sorted(workflow.workflow_id for workflow in client.list_workflows())


def test_a_committed_row_becomes_one_workflow(client: DBOSClient) -> None:
    version = request_mix()
    for _ in range(2):
        dispatcher.enqueue(client)
    assert ids(client) == [version.job_id]
    assert status_of(client, version.job_id) == ("ENQUEUED", queues.HEAVY)


def test_a_version_without_embedding_gets_a_job(client: DBOSClient) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)
    dispatcher.enqueue(client)
    assert status_of(client, embedding_job_id()) == ("ENQUEUED", queues.SHORT)


def test_a_version_with_old_router_inputs_is_embedded_again(client: DBOSClient) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        version = rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)
        old = Embedders(encoder=embedder_digest(), states="e" * 64)
        rows.embed(session, blob_stores.store(), version, [1.0] * 384, embedders=old)
    dispatcher.enqueue(client)
    assert status_of(client, embedding_job_id()) == ("ENQUEUED", queues.SHORT)
    set_status(embedding_job_id(), "SUCCESS")
    with db.transaction() as session:
        version = experts.get_version(session, 1)
        rows.embed(session, blob_stores.store(), version, [1.0] * 384)
        experts.mark_embedded(session, version.id)
    client.delete_workflow(embedding_job_id())
    dispatcher.enqueue(client)
    assert ids(client) == []


def test_a_finished_row_gets_no_job(client: DBOSClient) -> None:
    version = request_mix()
    dispatcher.enqueue(client)
    set_status(version.job_id, "CANCELLED")
    dispatcher.enqueue(client)
    client.delete_workflow(version.job_id)
    dispatcher.enqueue(client)
    assert ids(client) == []


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("CANCELLED", MixState.CANCELLED),
        ("ERROR", MixState.FAILED),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", MixState.FAILED),
    ],
)
def test_a_row_gets_the_final_state_of_its_workflow(
    client: DBOSClient, status: str, state: MixState
) -> None:
    version = request_mix()
    dispatcher.enqueue(client)
    set_status(version.job_id, status)
    dispatcher.enqueue(client)
    assert version_of(version.id).state is state


def test_a_retried_mix_gets_a_new_workflow(client: DBOSClient) -> None:
    version = request_mix()
    dispatcher.enqueue(client)
    set_status(version.job_id, "SUCCESS")
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.FAILED, error="the disk is full")
        mixes.retry(session, "mine@1")
    dispatcher.enqueue(client)
    assert status_of(client, version.job_id) == ("ENQUEUED", queues.HEAVY)
    assert version_of(version.id).state is MixState.QUEUED
    set_status(version.job_id, "ERROR")
    dispatcher.enqueue(client)
    assert version_of(version.id).error == dispatcher.LOST, "a lost workflow is not repeated"


def test_a_failed_projection_that_is_requested_again_gets_a_job_of_its_own(
    client: DBOSClient,
) -> None:
    first = job_ids.of_projection(_request_projection())
    dispatcher.enqueue(client)
    set_status(first, "SUCCESS")
    with db.transaction() as session:
        projections.mark_failed(session, session.get_one(Projection, 1), error="out of memory")
    dispatcher.enqueue(client)
    assert ids(client) == [first]
    again = _request_projection()
    assert again.state is ProjectionState.QUEUED
    dispatcher.enqueue(client)
    assert status_of(client, job_ids.of_projection(again)) == ("ENQUEUED", queues.HEAVY)


def test_a_registration_is_checked_before_its_domain_is_embedded(client: DBOSClient) -> None:
    version = _version_in(VersionState.CHECKING)
    dispatcher.enqueue(client)
    assert status_of(client, job_ids.of_check(version)) == ("ENQUEUED", queues.SHORT)
    set_status(job_ids.of_check(version), "SUCCESS")
    with db.transaction() as session:
        experts.mark_checked(session, version.id)
    dispatcher.enqueue(client)
    assert status_of(client, job_ids.of_embedding(version)) == ("ENQUEUED", queues.SHORT)


def test_a_seed_is_checked(client: DBOSClient) -> None:
    family = _version_in(VersionState.READY).expert.family
    with db.transaction() as session:
        families.find(session, "tiny").state = VersionState.CHECKING
    dispatcher.enqueue(client)
    assert status_of(client, job_ids.of_family(family)) == ("ENQUEUED", queues.SHORT)


@pytest.mark.parametrize("state", [VersionState.CHECKING, VersionState.EMBEDDING])
def test_a_registration_whose_job_was_lost_fails_and_can_be_retried(
    client: DBOSClient, state: VersionState
) -> None:
    version = _version_in(state)
    dispatcher.enqueue(client)
    (job_id,) = ids(client)
    set_status(job_id, "CANCELLED")
    dispatcher.enqueue(client)
    with db.transaction() as session:
        failed = experts.get_version(session, version.id)
        assert (failed.state, failed.error) == (VersionState.FAILED, dispatcher.LOST)
        retried = experts.retry(session, expert="expert-1", number=1)
    dispatcher.enqueue(client)
    assert status_of(client, job_ids.of_check(retried))[0] == "ENQUEUED"


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        (VersionState.UPLOADING, False),
        (VersionState.FAILED, False),
        # It may be in mixes, unless it was never ready.
        (VersionState.RETIRED, False),
        (VersionState.READY, True),
    ],
)
def test_only_a_version_in_use_is_embedded_by_new_embedders(
    client: DBOSClient, state: VersionState, wanted: bool
) -> None:
    version = _version_in(state)
    dispatcher.enqueue(client)
    assert bool(ids(client)) == wanted
    with db.transaction() as session:
        now = experts.get_version(session, version.id).state
    assert now is (VersionState.EMBEDDING if wanted else state)


def test_a_retired_version_is_embedded_again_until_that_fails(client: DBOSClient) -> None:
    version = _version_in(VersionState.RETIRED)
    with db.transaction() as session:
        experts.get_version(session, version.id).ready_at = datetime.now(UTC)
    dispatcher.enqueue(client)
    set_status(job_ids.of_embedding(version), "SUCCESS")
    for _ in range(2):
        dispatcher.enqueue(client)
    with db.transaction() as session:
        retired = experts.get_version(session, version.id)
        assert (retired.state, retired.error) == (VersionState.RETIRED, dispatcher.LOST)
        experts.retry(session, expert="expert-1", number=1)
    dispatcher.enqueue(client)
    assert len(ids(client)) == 2


def embedding_job_id() -> str:
    """Return the id of the embedding of the only version."""
    with db.transaction() as session:
        return job_ids.of_embedding(experts.get_version(session, 1))


def _version_in(state: VersionState) -> ExpertVersion:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        version = rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)
        version.state = state
        return version


def _request_projection() -> Projection:
    with db.transaction() as session:
        if not session.get(Projection, 1):
            rows.add_family(session, blob_stores.store())
        return projections.request(
            session,
            family="tiny",
            documents_digest="0" * 64,
            embedder_digest=embedder_digest(),
            training={},
        )
