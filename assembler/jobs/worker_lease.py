"""Leases of workers, and the recovery of jobs whose worker is dead or cut off.

The job store returns unfinished jobs only to their own worker, and only when it starts again under
the same name. So every worker holds two things. An advisory lock of its name, as long as its
database session lives: a worker that is started again has it at once. And a row that it renews each
second: a session can outlive a worker that was cut off from the database, and a worker can outlive
its session.

Whoever takes over from a worker has its lock, and has seen its row unchanged for DEAD_SECONDS. It
adds one to the row's epoch, which fences the old worker off (`assembler.mixes.fence`).
"""

import hashlib
import time
from collections.abc import Callable
from datetime import datetime

import psycopg
import structlog
from dbos import DBOSClient, WorkflowStatus
from psycopg import sql
from sqlalchemy import make_url, select
from sqlalchemy.orm import Session

from assembler.jobs import lease_clock, queues
from assembler.jobs.lease_clock import DEAD_SECONDS
from assembler.mixes import fence, job_events, mix_state
from assembler.mixes.fence import Fence, Superseded
from assembler.tables import MixState, MixVersion
from registry.database import db
from registry.database.connections import BoundedConnection
from registry.errors import Unavailable

log = structlog.get_logger(__name__)

# Recoveries are counted here, since the counter of DBOS starts again at every resume.
MAX_RECOVERIES = 5
OUTAGE_SECONDS = 300.0
POLL_SECONDS = 0.2
LOCK_MILLISECONDS = 5_000

LISTEN = sql.SQL("LISTEN {}").format(sql.Identifier(job_events.WAKE_CHANNEL))
# A network that swallows everything is noticed within these seconds.
CUT_OFF_SECONDS = 10
# A key of 64 bits is in pg_locks as two halves.
END_HOLDER = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((classid::bigint << 32) | objid::bigint) = %s
"""


class Lease:
    """A worker's database session: it holds the worker's lock and listens for new jobs."""

    def __init__(self, executor_id: str, *, url: str) -> None:
        self.executor_id = executor_id
        self._url = url
        self._connection: psycopg.Connection | None = None
        self._epoch = 0

    def claim(self, *, give_up: Callable[[], bool]) -> bool:
        """Wait for the worker's name and take it over. Return False if `give_up()` becomes true."""
        self._connect()
        watch, has_warned = LeaseWatch(), False
        while not self._try_lock():
            if give_up():
                return False
            if not has_warned:
                log.warning("another worker has this name, waiting", executor_id=self.executor_id)
                has_warned = True
            if watch.is_dead(self.executor_id, renewed_at(self._session, self.executor_id)):
                end_holder(self._session, self.executor_id)
            time.sleep(POLL_SECONDS)
        asked_at = time.monotonic()
        self._epoch = take_over(self._session, self.executor_id)
        fence.hold(Fence(self.executor_id, self._epoch))
        lease_clock.renewed(asked_at)
        return True

    def renew(self) -> None:
        """Renew the lease. Raises Superseded if another process acts for this worker by now."""
        asked_at = time.monotonic()
        done = self._session.execute(
            "UPDATE workers SET renewed_at = clock_timestamp()"
            " WHERE executor_id = %s AND epoch = %s",
            (self.executor_id, self._epoch),
        )
        if done.rowcount == 0:
            raise Superseded(f"another process acts for worker {self.executor_id}")
        lease_clock.renewed(asked_at)

    def listen(self, seconds: float) -> None:
        """Return when a job is announced, or after `seconds`. Raises psycopg.OperationalError."""
        for _ in self._session.notifies(timeout=seconds, stop_after=1):
            pass

    def reclaim(self) -> None:
        """Reconnect after the session was lost, and take the lock again.

        Raises Unavailable if the database stays unreachable, and Superseded if another process has
        taken over: then this worker's jobs run elsewhere.
        """
        self._connect()
        while not self._try_lock():
            self.renew()  # while the row is ours, the lock is held by our own lost session
            end_holder(self._session, self.executor_id)
            time.sleep(POLL_SECONDS)
        self.renew()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def _session(self) -> psycopg.Connection:
        assert self._connection is not None, "not claimed yet"
        return self._connection

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
        return try_lock(self._session, self.executor_id)


class LeaseWatch:
    """Tells leases that are renewed from those that are not, by this process's own clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[datetime | None, float]] = {}

    def is_dead(self, executor_id: str, renewed: datetime | None) -> bool:
        """Tell whether a lease has been seen unchanged for DEAD_SECONDS."""
        now = time.monotonic()
        before, since = self._seen.get(executor_id, (None, now))
        if executor_id not in self._seen or before != renewed:
            self._seen[executor_id] = (renewed, now)
            since = now
        return now - since >= DEAD_SECONDS

    def keep(self, executor_ids: set[str]) -> None:
        """Forget all leases but these."""
        self._seen = {k: v for k, v in self._seen.items() if k in executor_ids}


class Reaper:
    """Finds jobs of dead workers and puts them back into their queues."""

    def __init__(self, client: DBOSClient, *, executor_id: str, url: str) -> None:
        self._client = client
        self._executor_id = executor_id
        self._url = url
        self._watch = LeaseWatch()

    def look(self) -> None:
        """Recover the jobs of every other worker whose lease is not renewed."""
        pending = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        others = {w.executor_id for w in pending if w.executor_id} - {self._executor_id}
        self._watch.keep(others)
        if not others:
            return
        with connect(self._url) as connection:
            for other in others:
                renewed = renewed_at(connection, other)
                if self._watch.is_dead(other, renewed):
                    self._take_over(connection, other, is_known=renewed is not None)

    def forget(self) -> None:
        """Begin to observe anew: while the database was away nobody could renew a lease."""
        self._watch.keep(set())

    def _take_over(self, connection: psycopg.Connection, other: str, *, is_known: bool) -> None:
        if not try_lock(connection, other):
            # Workers of an older version renew nothing, and live as long as their session.
            if is_known:
                log.warning("a worker is cut off, ending its session", executor_id=other)
                end_holder(connection, other)
            return
        log.warning("a worker is dead, taking over", executor_id=other)
        try:
            take_over(connection, other)
            recover(self._client, executor_id=other)
        except psycopg.errors.LockNotAvailable:
            log.warning("a write of the worker goes on, trying again", executor_id=other)
        finally:
            unlock(connection, other)


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
    return BoundedConnection.connect(
        address,
        autocommit=True,
        connect_timeout=5,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
        tcp_user_timeout=CUT_OFF_SECONDS * 1000,
    )


def try_lock(connection: psycopg.Connection, executor_id: str) -> bool:
    """Take the lock of a worker for the life of the session; return False if it is taken."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(executor_id),)).fetchone()
    return row is not None and bool(row[0])


def unlock(connection: psycopg.Connection, executor_id: str) -> None:
    """Give back the lock of a worker."""
    connection.execute("SELECT pg_advisory_unlock(%s)", (lock_key(executor_id),))


def end_holder(connection: psycopg.Connection, executor_id: str) -> None:
    """End the session that holds the lock of a worker."""
    connection.execute(END_HOLDER, (lock_key(executor_id),))


def take_over(connection: psycopg.Connection, executor_id: str) -> int:
    """Fence off whoever acted for a worker before; return the new epoch.

    The caller must hold the worker's lock. Waits for writes that were checked already. Raises
    psycopg.errors.LockNotAvailable when they take too long.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
        connection.execute(
            "INSERT INTO workers (executor_id) VALUES (%s) ON CONFLICT DO NOTHING", (executor_id,)
        )
        # An update alone would not wait for the locks of `fence.check`.
        connection.execute("SELECT FROM workers WHERE executor_id = %s FOR UPDATE", (executor_id,))
        row = connection.execute(
            "UPDATE workers SET epoch = epoch + 1, renewed_at = clock_timestamp()"
            " WHERE executor_id = %s RETURNING epoch",
            (executor_id,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def renewed_at(connection: psycopg.Connection, executor_id: str) -> datetime | None:
    """Return when a worker last renewed its lease, None if it never had one."""
    row = connection.execute(
        "SELECT renewed_at FROM workers WHERE executor_id = %s", (executor_id,)
    ).fetchone()
    return None if row is None else row[0]


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
