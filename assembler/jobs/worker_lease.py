"""Leases of workers: each holds an advisory lock, and jobs of a worker without one are recovered.

The job store returns unfinished jobs only to their own worker, and only when it starts again under
the same name. So every worker holds an advisory lock of its name as long as its database session
lives. A process that can take the lock of a worker knows that the worker is dead. While it holds
the lock it acts for that worker; no other process can, not even the worker itself.
"""

import hashlib
import time
from collections.abc import Callable

import psycopg
import structlog
from dbos import DBOSClient, WorkflowStatus
from psycopg import sql
from sqlalchemy import make_url, select
from sqlalchemy.orm import Session

from assembler.jobs import queues
from assembler.mixes import job_events, mix_state
from assembler.tables import MixState, MixVersion
from registry.database import db
from registry.errors import Conflict, Unavailable

log = structlog.get_logger(__name__)

# Recoveries are counted here, since the counter of DBOS starts again at every resume.
MAX_RECOVERIES = 5
# A worker is dead if its lock is free this long. A restart of the database frees all locks until
# their owners have reconnected.
DEAD_SECONDS = 10.0
RECLAIM_SECONDS = 15.0
OUTAGE_SECONDS = 300.0
POLL_SECONDS = 0.2

LISTEN = sql.SQL("LISTEN {}").format(sql.Identifier(job_events.WAKE_CHANNEL))


class Lease:
    """A worker's database session: it holds the worker's lock and listens for new jobs."""

    def __init__(self, executor_id: str, *, url: str) -> None:
        self.executor_id = executor_id
        self._url = url
        self._connection: psycopg.Connection | None = None

    def claim(self, *, give_up: Callable[[], bool]) -> bool:
        """Wait for the worker's lock. Return False if `give_up()` becomes true."""
        self._connect()
        has_warned = False
        while not self._try_lock():
            if give_up():
                return False
            if not has_warned:
                log.warning("another worker has this name, waiting", executor_id=self.executor_id)
                has_warned = True
            time.sleep(POLL_SECONDS)
        return True

    def listen(self, seconds: float) -> None:
        """Return when a job is announced, or after `seconds`. Raises psycopg.OperationalError."""
        assert self._connection is not None
        for _ in self._connection.notifies(timeout=seconds, stop_after=1):
            pass

    def reclaim(self) -> None:
        """Reconnect after the session was lost, and take the lock again.

        Raises Unavailable if the database stays unreachable, and Conflict if another process holds
        the lock: then this worker's jobs run elsewhere.
        """
        self._connect()
        deadline = time.monotonic() + RECLAIM_SECONDS
        while not self._try_lock():
            if time.monotonic() > deadline:
                raise Conflict(f"another process acts for worker {self.executor_id}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> None:
        self.close()
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                self._connection = connect(self._url)
                self._connection.execute(LISTEN)
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"the database stays unreachable: {error}") from error
                time.sleep(POLL_SECONDS)

    def _try_lock(self) -> bool:
        assert self._connection is not None
        return try_lock(self._connection, self.executor_id)


class Reaper:
    """Finds jobs of dead workers and puts them back into their queues."""

    def __init__(self, client: DBOSClient, *, executor_id: str, url: str) -> None:
        self._client = client
        self._executor_id = executor_id
        self._url = url
        self._free_since: dict[str, float] = {}

    def look(self) -> None:
        """Recover the jobs of every other worker whose lock was free for DEAD_SECONDS."""
        pending = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        others = {workflow.executor_id for workflow in pending} - {self._executor_id, None}
        self._free_since = {k: v for k, v in self._free_since.items() if k in others}
        for other in others:
            assert other is not None
            with connect(self._url) as connection:
                if not try_lock(connection, other):
                    self._free_since.pop(other, None)
                elif (
                    time.monotonic() - self._free_since.setdefault(other, time.monotonic())
                    >= DEAD_SECONDS
                ):
                    log.warning("a worker is dead, taking over", executor_id=other)
                    recover(self._client, executor_id=other)


def recover(client: DBOSClient, *, executor_id: str) -> None:
    """Put the unfinished jobs of a dead worker back into their queues.

    The caller must hold the worker's lock. A job whose step was recovered MAX_RECOVERIES times
    is parked instead, since it may be what kills the workers.
    """
    for workflow in _pending(client, executor_id):
        job_id = workflow.workflow_id
        with db.transaction() as session:
            can_continue = _count_recovery(session, job_id)
        if can_continue:
            _put_back(client, workflow)
        else:
            log.error("job given up", job_id=job_id, recoveries=MAX_RECOVERIES)
            client.cancel_workflow(job_id)


def release(client: DBOSClient, *, executor_id: str) -> None:
    """Put back the unfinished jobs of a worker that stops in order; no recovery is counted."""
    for workflow in _pending(client, executor_id):
        _put_back(client, workflow)


def connect(url: str) -> psycopg.Connection:
    """Open a session for locks and notifications, outside the connection pool."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(address, autocommit=True, connect_timeout=5)


def try_lock(connection: psycopg.Connection, executor_id: str) -> bool:
    """Take the lock of a worker for the life of the session; return False if it is taken."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(executor_id),)).fetchone()
    return row is not None and bool(row[0])


def lock_key(executor_id: str) -> int:
    """Return the key of a worker's advisory lock: a signed 64-bit number, as PostgreSQL asks."""
    name = hashlib.sha256(f"{queues.APPLICATION}:worker:{executor_id}".encode()).digest()
    return int.from_bytes(name[:8], "big", signed=True)


def _pending(client: DBOSClient, executor_id: str) -> list[WorkflowStatus]:
    return client.list_workflows(
        status="PENDING", executor_id=executor_id, load_input=False, load_output=False
    )


def _put_back(client: DBOSClient, workflow: WorkflowStatus) -> None:
    # Without a queue name it would go to DBOS's own queue, which has no limit of heavy jobs.
    client.resume_workflow(workflow.workflow_id, queue_name=workflow.queue_name or queues.HEAVY)
    log.info("job put back", job_id=workflow.workflow_id, from_executor=workflow.executor_id)


def _count_recovery(session: Session, job_id: str) -> bool:
    """Record one more recovery. If there were too many, park the mix and return False."""
    num_before = job_events.num_recoveries(session, job_id)
    if num_before < MAX_RECOVERIES:
        text = f"the worker died; continuing ({num_before + 1} of {MAX_RECOVERIES})"
        job_events.record(session, job_id, type="state", message=text, data={"phase": "recovered"})
        return True
    version_id = session.scalar(select(MixVersion.id).where(MixVersion.job_id == job_id))
    if version_id is not None:
        error = f"its worker died {num_before + 1} times in one step; see the worker's log"
        mix_state.finish(session, version_id, state=MixState.PARKED, error=error)
    return False
