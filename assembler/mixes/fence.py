"""Refuse the writes of a worker that was replaced.

Each take-over of a worker's name adds one to its epoch. A worker and the processes of its steps
carry the epoch that they started with, and every write of theirs compares it in its own
transaction. The row stays locked until that transaction ends, so a take-over waits for writes that
were checked before it.
"""

import os
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.tables import Worker
from registry.errors import Conflict

# Passes the fence of a worker to the processes of its steps.
VARIABLE = "NEXUSMIX_FENCE"


class Superseded(Conflict):
    """Another process acts for this worker."""


@dataclass(frozen=True)
class Fence:
    """The name of a worker, and the epoch in which it acts."""

    executor_id: str
    epoch: int

    def as_environment(self) -> dict[str, str]:
        """Return the variable that gives a child process this fence."""
        return {VARIABLE: f"{self.epoch} {self.executor_id}"}


def current() -> Fence | None:
    """Return the fence of this process, None if it acts for no worker."""
    epoch, _, executor_id = os.environ.get(VARIABLE, "").partition(" ")
    return Fence(executor_id, int(epoch)) if epoch else None


def hold(fence: Fence) -> None:
    """Let this process, and those that it starts, act in an epoch."""
    os.environ |= fence.as_environment()


def check(session: Session) -> None:
    """Raise Superseded if the worker that this process acts for was replaced."""
    fence = current()
    if fence is None:
        return
    # A renewal of the lease does not wait for this lock, a take-over does.
    query = select(Worker.epoch).where(Worker.executor_id == fence.executor_id)
    if session.scalar(query.with_for_update(read=True, key_share=True)) != fence.epoch:
        raise Superseded(f"another process acts for worker {fence.executor_id}")
