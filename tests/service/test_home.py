"""Only one service at a time holds a data folder."""

import os
from pathlib import Path

import pytest

from registry.errors import Conflict, OutOfSpace
from service import home as homes


def test_the_holder_is_known_to_others(home: Path) -> None:
    assert homes.holder(home) is None
    with homes.held(home, address="http://here"):
        assert homes.holder(home) == homes.Holder(os.getpid(), "http://here")
    assert homes.holder(home) is None


def test_a_second_holder_is_refused_and_the_first_named(home: Path) -> None:
    with (
        homes.held(home, address="http://here"),
        pytest.raises(Conflict) as caught,
        homes.held(home, address="http://there"),
    ):
        pass
    assert f"process {os.getpid()} at http://here" in caught.value.detail
    assert str(home) in caught.value.detail


def test_a_full_disk_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "MIN_FREE_BYTES", 10**30)
    with pytest.raises(OutOfSpace, match="are needed"), homes.held(home, address=""):
        pass
