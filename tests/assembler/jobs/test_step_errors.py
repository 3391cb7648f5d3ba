"""Errors of steps are transient, deadly or permanent, whatever hides the system's error."""

import errno
import os

import httpx
import psycopg
import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from assembler.jobs import step_errors
from assembler.jobs.step_errors import Kind
from registry import errors
from registry.errors import (
    EngineFailed,
    GateFailed,
    InvalidInput,
    NexusmixError,
    NotFound,
    OutOfSpace,
    Problem,
    TimedOut,
    Unavailable,
)


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def hidden(inner: BaseException) -> Exception:
    """Return an error of a library that hides another one, as torch and safetensors do."""
    try:
        try:
            raise inner
        except BaseException:
            raise RuntimeError("cannot write")  # noqa: B904, as libraries do
    except RuntimeError as error:
        return error


def explained(inner: BaseException, outer: Exception) -> Exception:
    try:
        raise outer from inner
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        system_error(errno.ENOSPC),
        system_error(errno.EDQUOT),
        ConnectionResetError(),
        ConnectionRefusedError(),
        TimeoutError(),
        Unavailable("the object store cannot be reached"),
        OutOfSpace("no space left"),
        OperationalError("SELECT 1", {}, Exception("the server closed the connection")),
        psycopg.OperationalError("connection refused"),
        psycopg.errors.DiskFull("no space left"),
        httpx.ReadTimeout("too slow"),
        hidden(system_error(errno.ENOSPC)),
        hidden(ConnectionResetError()),
    ],
    ids=repr,
)
def test_what_passes_by_itself_is_transient(error: Exception) -> None:
    assert step_errors.kind_of(error) is Kind.TRANSIENT


@pytest.mark.parametrize(
    "error",
    [
        EngineFailed("the vLLM server ended with status 1"),
        MemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        hidden(MemoryError()),
    ],
    ids=repr,
)
def test_what_may_kill_the_machine_is_deadly(error: Exception) -> None:
    assert step_errors.kind_of(error) is Kind.DEADLY


@pytest.mark.parametrize(
    "error",
    [
        GateFailed("diverges"),
        NotFound("no blob"),
        ValueError("of a bug"),
        FileNotFoundError(),
        PermissionError(),
        ProgrammingError("SELEC 1", {}, Exception("syntax error")),
        # Our own error says what it is, whatever it came from.
        explained(ConnectionResetError(), InvalidInput("the folder is no checkpoint")),
    ],
    ids=repr,
)
def test_what_fails_again_is_permanent(error: Exception) -> None:
    assert step_errors.kind_of(error) is Kind.PERMANENT


def test_every_error_of_ours_has_a_kind() -> None:
    """A new class of error must be looked at: only these pass by themselves."""
    ours = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, NexusmixError)
    }
    kinds = {each: step_errors.kind_of(each("")) for each in ours}
    passing = {each for each, kind in kinds.items() if kind is Kind.TRANSIENT}
    assert passing == {Unavailable, TimedOut, OutOfSpace}
    assert {each for each, kind in kinds.items() if kind is Kind.DEADLY} == {EngineFailed}


def test_a_description_names_every_problem() -> None:
    error = InvalidInput("cannot be finetuned", problems=(Problem("/experts/0", "has no text"),))
    assert step_errors.describe(error) == "cannot be finetuned; /experts/0 has no text"
    assert step_errors.describe(ValueError("odd")) == "ValueError: odd"


def test_a_description_does_not_say_a_problem_twice() -> None:
    error = InvalidInput("layer 3 has no text", problems=(Problem("/layers/3", "has no text"),))
    assert step_errors.describe(error) == "layer 3 has no text"
