"""Errors of the comparison library reach users as errors of nexusmix."""

import pytest

from assembler.evaluation.runner_errors import OURS, as_ours
from engine.divergence.errors import ComparisonError, ServerUnavailable
from registry.errors import Unavailable


def test_an_error_keeps_its_message() -> None:
    with pytest.raises(Unavailable, match="no answer"), as_ours():
        raise ServerUnavailable("no answer")


def test_every_error_of_the_library_is_converted() -> None:
    assert set(OURS) == set(ComparisonError.__subclasses__())
