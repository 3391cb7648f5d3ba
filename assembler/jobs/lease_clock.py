"""The time since this worker last renewed its lease; steps stop before others may begin them.

A step is watched without a question to the database, which may hang with it.
"""

import time

# Another worker takes over when it has seen a lease unchanged for DEAD_SECONDS. A worker that could
# not renew its own for STALE_SECONDS stops its steps, which takes STOP_SECONDS at most.
DEAD_SECONDS = 20.0
STALE_SECONDS = 12.0
STOP_SECONDS = 3.0

_renewed_at: float | None = None


def renewed(at: float) -> None:
    """Record a renewal that was asked for at a monotonic time, and has succeeded."""
    global _renewed_at
    _renewed_at = at


def is_stale() -> bool:
    """Tell whether another worker may soon take over. A process without a lease is never stale."""
    return _renewed_at is not None and time.monotonic() > _renewed_at + STALE_SECONDS


def forget() -> None:
    """Forget the lease, since its worker ends."""
    global _renewed_at
    _renewed_at = None
