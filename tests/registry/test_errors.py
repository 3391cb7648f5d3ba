"""Errors keep their details when they are pickled, and pointers are escaped."""

import pickle

import pytest

from registry.errors import MAX_PROBLEMS, InvalidCheckpoint, InvalidInput, Problem, pointer


def test_an_error_survives_the_job_store() -> None:
    error = InvalidCheckpoint("bad", problems=(Problem("/a", "is bad"),))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is InvalidCheckpoint
    assert (copy.detail, copy.problems) == (error.detail, error.problems)


def test_the_list_of_problems_is_bounded() -> None:
    problems = tuple(Problem("", str(i)) for i in range(1000))
    assert len(InvalidInput("bad", problems=problems).problems) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ("steps", "expected"),
    [((), ""), (("shards", 0), "/shards/0"), (("files", "a/b~c"), "/files/a~1b~0c")],
)
def test_a_pointer_escapes_its_steps(steps: tuple[str | int, ...], expected: str) -> None:
    assert pointer(*steps) == expected
