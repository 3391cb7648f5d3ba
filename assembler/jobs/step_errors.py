"""Tell errors of steps apart: what passes by itself, what ends the job, what ends its process.

A child process tells the worker by its exit status, since its log cannot be written when the disk
is full.
"""

import errno
import os
from collections.abc import Iterator
from enum import IntEnum

import httpx
import psycopg
from sqlalchemy.exc import SQLAlchemyError

from assembler.mixes import job_events
from registry.errors import EngineFailed, NexusmixError, OutOfSpace, StepFailed, Unavailable

PASSING_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ESTALE,
}
# Torch is not imported here. torch.OutOfMemoryError is what a full GPU raises.
OUT_OF_MEMORY = "OutOfMemoryError"


class Kind(IntEnum):
    """What becomes of a step that failed; the value is the exit status of its process."""

    # The same inputs fail again: the job ends.
    PERMANENT = 1
    # Counted like a kill: after a few times the job is parked.
    DEADLY = os.EX_UNAVAILABLE
    # What the step needs is away for a while: the step is repeated.
    TRANSIENT = os.EX_TEMPFAIL


# Python ends with 120 when it cannot write its output, as on a full disk.
OUTPUT_LOST = 120
KINDS = {OUTPUT_LOST: Kind.TRANSIENT, **{int(kind): kind for kind in Kind}}


class TransientFailure(StepFailed):
    """What a step needs is away for a while."""


class Killed(StepFailed):
    """The process of a step, or its engine, was killed or ran out of memory."""


class Poisoned(StepFailed):
    """A step has killed its process too often."""


ERRORS: dict[Kind, type[StepFailed]] = {
    Kind.PERMANENT: StepFailed,
    Kind.DEADLY: Killed,
    Kind.TRANSIENT: TransientFailure,
}


def kind_of(error: BaseException) -> Kind:
    """Classify an error by its class, or by the error that caused it.

    Our own errors are said to be what they are; those of libraries hide the system's error.
    """
    for each in _causes(error):
        if isinstance(each, EngineFailed | MemoryError) or type(each).__name__ == OUT_OF_MEMORY:
            return Kind.DEADLY
        if _is_passing(each):
            return Kind.TRANSIENT
        if isinstance(each, NexusmixError):
            return Kind.PERMANENT
    return Kind.PERMANENT


def describe(error: BaseException) -> str:
    """Return an error as a sentence: of ours its detail and problems, of others class and text."""
    if isinstance(error, NexusmixError):
        # An error with one problem may have the same words for both.
        problems = (p for p in error.problems if p.detail not in error.detail)
        return "; ".join([error.detail, *(f"{p.pointer} {p.detail}" for p in problems)])
    return f"{type(error).__name__}: {error}"


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, SQLAlchemyError):
        return job_events.is_outage(error)
    if isinstance(error, OSError) and error.errno in PASSING_ERRNOS:
        return True
    passing = (
        Unavailable,
        OutOfSpace,
        ConnectionError,
        TimeoutError,
        psycopg.OperationalError,
        httpx.TransportError,
    )
    return isinstance(error, passing)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
