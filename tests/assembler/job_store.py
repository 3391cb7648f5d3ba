"""The durable job store without a worker: workflows as rows, brought into any state."""

from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOS, DBOSClient
from sqlalchemy import text

from assembler.jobs import queues
from registry.database import db
from tests.assembler.workers import forget_jobs


@contextmanager
def empty_store(url: str) -> Iterator[DBOSClient]:
    """A client of a store that knows no job."""
    forget_jobs()
    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, application_name=queues.APPLICATION)
    try:
        yield client
    finally:
        client.destroy()


def set_status(job_id: str, status: str, *, executor_id: str | None = None) -> None:
    """As if a worker had taken the workflow, or ended it."""
    with db.transaction() as session:
        session.execute(
            text(
                "UPDATE dbos.workflow_status SET status = :status, executor_id = :executor"
                " WHERE workflow_uuid = :id"
            ),
            {"status": status, "executor": executor_id, "id": job_id},
        )


def status_of(client: DBOSClient, job_id: str) -> tuple[str, str | None]:
    """Status and queue."""
    workflow = client.retrieve_workflow(job_id).get_status()
    return workflow.status, workflow.queue_name
