"""Cards are counted by what the driver lists, and by what is visible to a process."""

from pathlib import Path

import pytest

from engine.vllm_server import devices


def test_the_driver_lists_its_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    monkeypatch.setattr(devices, "CARDS", tmp_path)
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert devices.num_gpus() == 2
    monkeypatch.setattr(devices, "CARDS", tmp_path / "nowhere")
    assert devices.num_gpus() is None


@pytest.mark.parametrize(("visible", "number"), [("", 0), ("3", 1), ("0,1", 2)])
def test_only_visible_cards_count(
    visible: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(devices.VISIBLE, visible)
    assert devices.num_gpus() == number
