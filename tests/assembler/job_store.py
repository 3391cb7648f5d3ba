"""The durable job store without a worker: workflow rows that tests set to any state."""

from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOS, DBOSClient
from sqlalchemy import text

from assembler.jobs import queues
from registry.database import db
from tests.assembler.workers import forget_jobs


@contextmanager
def empty_store(url: str) -> Iterator[DBOSClient]:
    """Yield a client of a job store without jobs."""
    forget_jobs()
    DBOS.migrate(url)
    client = DBOSClient(system_database_url=url, application_name=queues.APPLICATION)
    try:
        yield client
    finally:
        client.destroy()


def set_status(job_id: str, status: str, *, executor_id: str | None = None) -> None:
    """Set a workflow's status as if a worker had taken or ended it."""
    with db.transaction() as session:
        session.execute(
            text(
                "UPDATE dbos.workflow_status SET status = :status, executor_id = :executor"
                " WHERE workflow_uuid = :id"
            ),
            {"status": status, "executor": executor_id, "id": job_id},
        )


def status_of(client: DBOSClient, job_id: str) -> tuple[str, str | None]:
    """Return a job's status and queue."""
    workflow = client.retrieve_workflow(job_id).get_status()
    return workflow.status, workflow.queue_name
