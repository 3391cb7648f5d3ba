"""Every row that waits for a job gets exactly one."""

from collections.abc import Iterator

import pytest
from dbos import DBOSClient

from assembler.jobs import dispatcher, queues
from assembler.mixes import mix_state, mixes
from assembler.routing.embedder import embedder_digest
from assembler.tables import MixState
from registry.blobs import blob_stores
from registry.catalog import experts, projections
from registry.catalog.embeddings import Embedders
from registry.database import db
from registry.database.tables import Projection, ProjectionState
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
    assert status_of(client, dispatcher.embedding_job_id(1)) == ("ENQUEUED", queues.SHORT)


def test_a_version_with_old_router_inputs_is_embedded_again(client: DBOSClient) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        version = rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)
        old = Embedders(encoder=embedder_digest(), states="e" * 64)
        rows.embed(session, blob_stores.store(), version, [1.0] * 384, embedders=old)
    dispatcher.enqueue(client)
    assert status_of(client, dispatcher.embedding_job_id(1)) == ("ENQUEUED", queues.SHORT)
    set_status(dispatcher.embedding_job_id(1), "SUCCESS")
    with db.transaction() as session:
        version = experts.get_version(session, 1)
        rows.embed(session, blob_stores.store(), version, [1.0] * 384)
    client.delete_workflow(dispatcher.embedding_job_id(1))
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
        mixes.retry(session, "mine")
    dispatcher.enqueue(client)
    assert status_of(client, version.job_id) == ("ENQUEUED", queues.HEAVY)
    assert version_of(version.id).state is MixState.QUEUED
    set_status(version.job_id, "ERROR")
    dispatcher.enqueue(client)
    assert version_of(version.id).error == dispatcher.LOST, "a lost workflow is not repeated"


def test_a_failed_projection_can_be_requested_again(client: DBOSClient) -> None:
    job_id = dispatcher.projection_job_id(_request_projection().id)
    dispatcher.enqueue(client)
    set_status(job_id, "SUCCESS")
    with db.transaction() as session:
        projections.mark_failed(session, session.get_one(Projection, 1), error="out of memory")
    dispatcher.enqueue(client)
    assert status_of(client, job_id)[0] == "SUCCESS"
    assert _request_projection().state is ProjectionState.QUEUED
    dispatcher.enqueue(client)
    assert status_of(client, job_id) == ("ENQUEUED", queues.HEAVY)


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
