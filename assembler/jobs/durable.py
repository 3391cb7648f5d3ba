"""Transactions of a worker: repeated as long as it runs, refused once it was replaced."""

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assembler.jobs.step_process import STOPPING, WorkerStopping
from assembler.mixes import job_events
from assembler.mixes.fence import Superseded
from registry.database import db

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Another process acts for this worker.
REPLACED = threading.Event()


def durably(work: Callable[[Session], T]) -> T:
    """Do as `job_events.durably`, and raise WorkerStopping in place of an outcome.

    The error of an outage would end the job; another worker must go on with it instead.
    """
    while True:
        try:
            return job_events.durably(work, stop=STOPPING)
        except Superseded as error:
            log.warning("this worker was replaced, stopping its steps", error=error.detail)
            REPLACED.set()
            STOPPING.set()
            raise WorkerStopping from error
        except (DBAPIError, *db.OUTAGES) as error:
            if not job_events.is_outage(error):
                raise
            if STOPPING.is_set():
                raise WorkerStopping from error
