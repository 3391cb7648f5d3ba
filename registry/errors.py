"""The error tree.

NexusmixError
├── InvalidInput          what was sent is wrong: says what, where, and what would be right
│   ├── TooLarge              more bytes than this installation takes at once
│   ├── InvalidCheckpoint     a safetensors header or tensor that must not enter
│   └── Incompatible          a sound checkpoint that does not fit its family or its fellow experts
├── NotFound              no such thing under that name
├── Conflict              the thing is in a state that does not allow this
├── Unauthenticated       no key, or an unknown one
├── GateFailed            a candidate diverges more than its policy allows
├── StepFailed            a child process of a job ended badly
├── OutOfSpace            the disk cannot hold what is asked for
└── Unavailable           a part we depend on does not answer
"""

from dataclasses import dataclass

# More than anybody reads; a hostile upload must not get an answer as large as itself.
MAX_PROBLEMS = 50


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where: `pointer` is a JSON pointer into the request body."""

    pointer: str
    detail: str


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901) from its steps: `pointer("shards", 0)` is `/shards/0`."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class NexusmixError(Exception):
    """Base of all errors that a user may see; `detail` is a sentence for them."""

    def __init__(self, detail: str, *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = problems[:MAX_PROBLEMS]

    def __reduce__(self) -> tuple[object, ...]:
        # Errors of workflow steps are pickled by the job store; keyword arguments would be lost.
        return (_rebuild, (type(self), self.detail, self.problems))


def _rebuild(
    kind: type[NexusmixError], detail: str, problems: tuple[Problem, ...]
) -> NexusmixError:
    return kind(detail, problems=problems)


class InvalidInput(NexusmixError):
    pass


class TooLarge(InvalidInput):
    pass


class InvalidCheckpoint(InvalidInput):
    pass


class Incompatible(InvalidInput):
    pass


class NotFound(NexusmixError):
    pass


class Conflict(NexusmixError):
    pass


class Unauthenticated(NexusmixError):
    pass


class GateFailed(NexusmixError):
    pass


class StepFailed(NexusmixError):
    pass


class OutOfSpace(NexusmixError):
    pass


class Unavailable(NexusmixError):
    pass
