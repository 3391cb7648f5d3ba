"""A folder is made completely or not at all."""

import os
from pathlib import Path

import pytest

from registry.folders import whole_folder


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with whole_folder(folder) as unfinished:
        (unfinished / "a").touch()
        assert not folder.exists()
    assert [file.name for file in folder.iterdir()] == ["a"]
    assert list(folder.parent.iterdir()) == [folder]


def test_only_the_owner_can_enter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with whole_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "folder") as unfinished:
            (unfinished / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("may_exist", [True, False])
def test_the_first_of_two_folders_is_kept(tmp_path: Path, may_exist: bool) -> None:
    folder = tmp_path / "folder"

    def second() -> None:
        with whole_folder(folder, may_exist=may_exist) as unfinished:
            (unfinished / "second").touch()
            folder.mkdir()
            (folder / "first").touch()

    if may_exist:
        second()
    else:
        with pytest.raises(OSError, match="not empty"):
            second()
    assert [file.name for file in folder.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [folder]
