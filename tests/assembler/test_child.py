"""A step's process: its own words reach whoever started it, and it ends when told to."""

import pytest

from assembler import child
from registry.errors import StepFailed


def test_the_last_word_of_a_step_is_its_error() -> None:
    with pytest.raises(StepFailed, match="no-such-step: KeyError: 'no-such-step'"):
        child.run("no-such-step", 1, job_id="job", cancelled=lambda: False)


def test_a_cancelled_step_is_stopped() -> None:
    with pytest.raises(child.Cancelled):
        child.run("assemble", 1, job_id="job", cancelled=lambda: True)
