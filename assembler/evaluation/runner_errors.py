"""Errors of `engine.divergence`, which knows none of ours, as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.divergence.errors import (
    ComparisonError,
    Incomparable,
    RequestRefused,
    ServerUnavailable,
)
from registry.errors import EngineFailed, Incompatible, InvalidInput, NexusmixError

OURS: dict[type[ComparisonError], type[NexusmixError]] = {
    ServerUnavailable: EngineFailed,
    RequestRefused: InvalidInput,
    Incomparable: Incompatible,
}


@contextmanager
def as_ours() -> Iterator[None]:
    """Raise an error of a comparison as the error of ours with the same meaning; also a decorator.

    A server that does not answer is EngineFailed, a refused request InvalidInput, a server that
    cannot be compared Incompatible.
    """
    try:
        yield
    except ComparisonError as error:
        raise OURS[type(error)](str(error)) from error
