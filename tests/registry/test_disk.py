"""A reserve of the disk with the database stays free; on other disks there is none."""

from pathlib import Path

import pytest

from assembler.jobs import step_errors
from assembler.jobs.step_errors import Kind
from registry import disk
from registry.disk import Growth, check_room, reserve_on
from registry.errors import OutOfSpace
from registry.settings import settings
from tests import small_disk

# Prints how much of a disk of 1 MiB a writer takes beside a reserve of half of it.
GROWING = """
import os, sys, pathlib
folder = pathlib.Path(sys.argv[1])
os.environ["NEXUSMIX_HOME"] = str(folder)
os.environ["NEXUSMIX_DISK_RESERVE_BYTES"] = str(1 << 19)
from registry import disk, errors
disk.CHECK_EVERY_BYTES = 1
growth, piece = disk.Growth(folder), bytes(1 << 16)
with (folder / "file").open("wb", buffering=0) as file:
    try:
        while True:
            growth.by(len(piece))
            file.write(piece)
    except errors.OutOfSpace as error:
        print(file.tell() >> 16, "are kept for the database" in error.detail)
"""
OTHER = """
import os, sys, pathlib
os.environ["NEXUSMIX_HOME"] = os.getcwd()
from registry import disk
print(disk.reserve_on(pathlib.Path(sys.argv[1]) / "not" / "there"))
"""


def test_a_writer_stops_before_the_reserve(tmp_path: Path) -> None:
    assert small_disk.run(GROWING, tmp_path) == "8 True\n"


def test_another_disk_has_no_reserve(tmp_path: Path) -> None:
    assert small_disk.run(OTHER, tmp_path) == "0\n"


def test_the_disk_of_the_data_folder_has_a_reserve(home: Path) -> None:
    assert reserve_on(home / "cache") == 0, "a client has no data folder"
    home.mkdir()
    assert reserve_on(home / "cache") == settings().disk_reserve_bytes


def test_the_room_is_checked_now_and_then(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(disk, "check_room", lambda *_, **options: asked.append(1))
    growth = Growth(home)
    for _ in range(32):
        growth.by(1 << 20)
    assert len(asked) == 2


def test_a_step_waits_for_the_disk(home: Path) -> None:
    home.mkdir()
    with pytest.raises(OutOfSpace) as error:
        check_room(home, 1 << 60)
    assert step_errors.kind_of(error.value) is Kind.TRANSIENT
