"""End what takes too long."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def time_limit(seconds: float, late: Exception) -> Iterator[None]:
    """Raise `late` in the block once it has taken `seconds`. Only the main thread may call this."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise late

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
