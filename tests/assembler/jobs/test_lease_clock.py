"""A lease is stale when it was not renewed for a while."""

import time
from collections.abc import Iterator

import pytest

from assembler.jobs import lease_clock


@pytest.fixture(autouse=True)
def no_lease() -> Iterator[None]:
    lease_clock.forget()
    yield
    lease_clock.forget()


def test_a_process_without_a_lease_is_never_stale() -> None:
    assert not lease_clock.is_stale()


def test_a_lease_is_stale_when_it_was_not_renewed() -> None:
    lease_clock.renewed(time.monotonic())
    assert not lease_clock.is_stale()
    lease_clock.renewed(time.monotonic() - lease_clock.STALE_SECONDS - 1)
    assert lease_clock.is_stale()
