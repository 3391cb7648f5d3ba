"""Paths are checked before a command works."""

from pathlib import Path

import pytest

from registry.errors import Conflict, InvalidInput
from service.cli.paths import check_new_file, check_new_folder, is_path


def test_a_new_folder_may_be_deep(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Conflict, match="exists already"):
        check_new_folder(tmp_path / "file")
    with pytest.raises(InvalidInput, match="is a file"):
        check_new_folder(tmp_path / "file" / "a")


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    check_new_file(tmp_path / "report.json")
    check_new_file(None)
    with pytest.raises(InvalidInput, match="there is no folder"):
        check_new_file(tmp_path / "none" / "report.json")
    with pytest.raises(InvalidInput, match="is a folder: name a file"):
        check_new_file(tmp_path)


def test_what_has_a_slash_or_exists_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_path("/missing")
    assert is_path("./missing")
    assert is_path("here")
    assert not is_path("demo@2")
