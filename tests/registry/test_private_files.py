"""Files of an owner: whole, private whatever the umask is, and never replaced."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import private_files


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_new_file_is_private(tmp_path: Path, open_umask: None) -> None:
    path = tmp_path / "deep" / "file"
    assert private_files.write_new(path, b"data")
    assert path.read_bytes() == b"data"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert private_files.write_new(path, b"first")
    assert not private_files.write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_interrupted_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / f".file-{os.getpid()}").write_bytes(b"hal")
    assert private_files.write_new(path, b"half")
    assert path.read_bytes() == b"half"


def test_a_folder_is_private_and_those_above_as_usual(tmp_path: Path, open_umask: None) -> None:
    folder = tmp_path / "above" / "folder"
    for _ in range(2):
        private_files.make_folder(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o755)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o777


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o777, 0o700), (0o400, 0o400)])
def test_others_lose_their_rights(tmp_path: Path, before: int, after: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(before)
    private_files.close_to_others(path)
    assert stat.S_IMODE(path.stat().st_mode) == after
