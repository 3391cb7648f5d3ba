"""Cached folders are made once, completely or not at all."""

from pathlib import Path

import pytest

from assembler.content_cache import made_once


def test_work_is_done_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "result"
    assert made_once(folder, lambda target: (target / "a").touch()) == folder

    def again(_: Path) -> None:
        raise AssertionError("made twice")

    made_once(folder, again)
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_a_failure_leaves_no_folder(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        (target / "half").touch()
        raise RuntimeError("died in the middle")

    with pytest.raises(RuntimeError):
        made_once(tmp_path / "result", fail)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_concurrent_results_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "result"

    def overtaken(target: Path) -> None:
        (target / "second").touch()
        made_once(folder, lambda other: (other / "first").touch())

    made_once(folder, overtaken)
    assert [file.name for file in folder.iterdir()] == ["first"]
