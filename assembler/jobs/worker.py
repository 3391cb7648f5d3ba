"""The worker process, `python -m assembler.jobs.worker`: run jobs, one heavy job at a time.

It never loads torch: each step of a job is a process of its own (`assembler.jobs.step_process`).
"""

import logging
import signal
import sys
import time

import psycopg
import structlog
from dbos import DBOS, DBOSClient, DBOSConfig
from sqlalchemy.exc import DBAPIError

# The import registers the workflows.
from assembler.jobs import (
    dispatcher,
    durable,
    lease_clock,
    queues,
    registration_workflows,
    step_process,
    workflows,
)
from assembler.jobs.worker_lease import Lease, Reaper, recover, release
from assembler.mixes.fence import Superseded
from registry import logs, tracing
from registry.database import db
from registry.errors import NexusmixError, Unavailable
from registry.settings import settings

log = structlog.get_logger(__name__)

ROUND_SECONDS = 1.0
REAP_SECONDS = 5.0
QUEUE_POLL_SECONDS = 0.2
STOP_SECONDS = 15

__all__ = ["main", "registration_workflows", "workflows"]


def main() -> int:
    """Run until SIGTERM or SIGINT, and return 0; return 1 if the worker needs a restart."""
    logs.configure("worker", level=settings().log_level)
    tracing.configure("worker")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: step_process.STOPPING.set())
    url = settings().database_url
    if url is None:
        raise Unavailable("no database: NEXUSMIX_DATABASE_URL is not set")
    lease = Lease(settings().executor_id, url=url)
    try:
        if lease.claim(give_up=step_process.STOPPING.is_set):
            _work(lease, url)
        return 0
    except NexusmixError as error:
        log.error("the worker gives up", error=error.detail)
        return 1
    finally:
        lease.close()
        lease_clock.forget()


def _work(lease: Lease, url: str) -> None:
    client = _launch(lease.executor_id, url)
    with step_process.preloaded():
        try:
            _rounds(lease, client, url)
        finally:
            # Running steps see this as well: they stop their processes and record no outcome.
            step_process.STOPPING.set()
            DBOS.destroy(workflow_completion_timeout_sec=STOP_SECONDS)
    # Another worker runs this one's jobs by now, and must keep them.
    if durable.REPLACED.is_set():
        raise Superseded(f"another process acts for worker {lease.executor_id}")
    try:
        lease.renew()
        release(client, executor_id=lease.executor_id)
    except (psycopg.OperationalError, DBAPIError, *db.OUTAGES) as error:
        log.warning(
            "no database: the jobs stay until others see this worker gone", error=str(error).strip()
        )
    client.destroy()


def _rounds(lease: Lease, client: DBOSClient, url: str) -> None:
    reaper = Reaper(client, executor_id=lease.executor_id, url=url)
    next_reaping, is_connected = time.monotonic(), True
    while not step_process.STOPPING.is_set():
        try:
            if is_connected:
                lease.renew()
            else:
                lease.reclaim()
                is_connected = True
            dispatcher.enqueue(client)
            if time.monotonic() >= next_reaping:
                reaper.look()
                next_reaping = time.monotonic() + REAP_SECONDS
            lease.listen(ROUND_SECONDS)
        except (psycopg.OperationalError, DBAPIError, *db.OUTAGES) as error:
            log.warning("the database went away", error=str(error).strip())
            reaper.forget()
            is_connected = False


def _launch(executor_id: str, url: str) -> DBOSClient:
    """Put this worker's unfinished jobs back into their queues, then start DBOS.

    DBOS would recover them by itself, but without counting the attempts.
    """
    # DBOS does not change a logger that has a handler, so its lines take our format.
    dbos_log = logging.getLogger("dbos")
    dbos_log.addHandler(logging.NullHandler())
    dbos_log.setLevel(logging.WARNING)
    DBOS.migrate(url)
    client = DBOSClient(
        system_database_url=url,
        application_name=queues.APPLICATION,
        # A call that waits for the database would keep this worker from renewing its lease.
        retry_connection_errors=False,
    )
    recover(client, executor_id=executor_id)
    config: DBOSConfig = {
        "name": queues.APPLICATION,
        "system_database_url": url,
        "executor_id": executor_id,
        "application_version": queues.APPLICATION_VERSION,
        "use_listen_notify": True,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.listen_queues(list(queues.ALL))
    DBOS.launch()
    for queue in queues.ALL:
        DBOS.register_queue(queue, worker_concurrency=1, polling_interval_sec=QUEUE_POLL_SECONDS)
    log.info("worker ready", executor_id=executor_id)
    return client


if __name__ == "__main__":
    sys.exit(main())
