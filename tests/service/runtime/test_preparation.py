"""What the command line has computed in a child of its own."""

from collections.abc import Mapping
from typing import Any

import pytest

from assembler.jobs import step_process
from registry.errors import Unavailable
from service.runtime import preparation


class Full:
    """A launcher without room, which keeps what it was asked to start something in."""

    env: Mapping[str, str]

    def run(self, command: list[str], *, env: Mapping[str, str], **_: Any) -> None:
        Full.env = env
        raise Unavailable("no room")


def test_its_threads_wait_as_those_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a busy process they would else spin for most of its time."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(preparation, "LocalLauncher", Full)
    with pytest.raises(Unavailable, match="no room"):
        preparation.run("seed", on_progress=lambda text: None)
    assert Full.env["GOMP_SPINCOUNT"] == str(step_process.SPIN_COUNT)
