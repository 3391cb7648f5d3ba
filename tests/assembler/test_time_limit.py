"""What takes too long is ended, and the process is as before."""

import signal

import pytest

from assembler.time_limit import time_limit


def test_what_takes_too_long_is_ended() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeoutError, match="late"), time_limit(0.01, TimeoutError("late")):
        signal.pause()
    assert signal.getsignal(signal.SIGALRM) is before


def test_what_ends_in_time_is_left_alone() -> None:
    with time_limit(60, TimeoutError("late")):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
