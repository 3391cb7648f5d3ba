"""Tasks in a child process."""

from collections.abc import Mapping
from typing import Any

import pytest

from assembler.jobs import step_process
from registry.errors import Unavailable
from service.runtime import preparation


class Full:
    """A launcher that starts nothing and records the environment."""

    env: Mapping[str, str]

    def run(self, command: list[str], *, env: Mapping[str, str], **_: Any) -> None:
        Full.env = env
        raise Unavailable("no room")


def test_threads_of_the_child_wait_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise they would spin beside a busy process."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(preparation, "LocalLauncher", Full)
    with pytest.raises(Unavailable, match="no room"):
        preparation.run("seed", on_progress=lambda text: None)
    assert Full.env["GOMP_SPINCOUNT"] == str(step_process.SPIN_COUNT)
