"""Errors that a user may see; all are subclasses of NexusmixError."""

from dataclasses import dataclass
from typing import ClassVar

# More than a person reads. A hostile upload must not get a response of its own size.
MAX_PROBLEMS = 50


@dataclass(frozen=True)
class Problem:
    """One problem of a request."""

    # Pydantic uses the strings below the fields as their descriptions.
    __pydantic_config__: ClassVar = {"use_attribute_docstrings": True}

    pointer: str
    """JSON pointer (RFC 6901) to the wrong part of the request body."""
    detail: str
    """What is wrong with it."""


def pointer(*steps: str | int) -> str:
    """Join steps to a JSON pointer (RFC 6901): `pointer("shards", 0)` is `/shards/0`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class NexusmixError(Exception):
    """Base of all errors that a user may see. `detail` is a sentence for the user."""

    def __init__(self, detail: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = problems[:MAX_PROBLEMS]

    def __reduce__(self) -> tuple[object, ...]:
        # The job store pickles errors of workflow steps, which would lose keyword arguments.
        return (_rebuild, (type(self), self.detail, self.problems))


def _rebuild(
    kind: type[NexusmixError], detail: str, problems: tuple[Problem, ...]
) -> NexusmixError:
    return kind(detail, problems=problems)


class InvalidInput(NexusmixError):
    """The request is wrong. The problems name each wrong part and what is expected."""


class TooLarge(InvalidInput):
    """The request has more bytes than this installation accepts."""


class InvalidCheckpoint(InvalidInput):
    """A safetensors header or a tensor is not safe or not sound."""


class Incompatible(InvalidInput):
    """A sound checkpoint does not fit its family or the other experts."""


class RefusedOptions(InvalidInput):
    """Options of an engine do not fit the checkpoint, each other, or the host."""


class NotFound(NexusmixError):
    """Nothing has that name."""


class Conflict(NexusmixError):
    """The object is in a state that does not allow this."""


class Unauthenticated(NexusmixError):
    """The request has no key, or an unknown one."""


class Forbidden(NexusmixError):
    """The key of the request may not do this."""


class GateFailed(NexusmixError):
    """A candidate diverges more than its policy allows."""


class StepFailed(NexusmixError):
    """A process of a job failed."""


class TooManyRequests(NexusmixError):
    """One key asks for more at a time, or more often, than this installation allows."""


class OutOfSpace(NexusmixError):
    """The disk cannot hold the bytes."""


class Unavailable(NexusmixError):
    """A part that the service depends on does not answer."""


class TimedOut(Unavailable):
    """A part that the service depends on has not answered in time."""


class EngineFailed(Unavailable):
    """The process that serves a model ended, or does not answer."""
