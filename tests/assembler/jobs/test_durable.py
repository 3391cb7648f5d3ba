"""A worker records no outcome once it stops or was replaced."""

from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from assembler.jobs import step_process
from assembler.jobs.durable import durably
from assembler.jobs.step_process import WorkerStopping
from assembler.mixes import fence
from assembler.mixes.fence import Fence


@pytest.fixture(autouse=True)
def running(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(fence.VARIABLE, "")
    step_process.STOPPING.clear()
    yield
    step_process.STOPPING.clear()


def away(session: Session) -> None:
    raise OperationalError("SELECT 1", {}, Exception("the server closed the connection"))


def test_a_stopping_worker_leaves_an_outage_to_the_next() -> None:
    step_process.STOPPING.set()
    with pytest.raises(WorkerStopping):
        durably(away)


def test_a_replaced_worker_stops_all_its_steps() -> None:
    fence.hold(Fence("nobody", 1))
    with pytest.raises(WorkerStopping):
        durably(lambda session: None)
    assert step_process.STOPPING.is_set()
