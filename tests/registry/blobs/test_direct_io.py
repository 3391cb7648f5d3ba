"""A file is written from its parts, wherever chunks and sectors end."""

import errno
import os
from functools import partial
from io import FileIO
from pathlib import Path

import pytest

from registry.blobs import direct_io
from registry.blobs.direct_io import CHUNK_BYTES, Part
from tests import small_disk

SIZES = [5, 0, CHUNK_BYTES - 1, 3 * CHUNK_BYTES + 17, 4096]


def test_parts_follow_each_other(tmp_path: Path) -> None:
    contents = [os.urandom(size) for size in SIZES]
    heard: list[int] = []
    direct_io.write(tmp_path / "whole", b"header", parts(tmp_path, contents), on_bytes=heard.append)
    assert (tmp_path / "whole").read_bytes() == b"header" + b"".join(contents)
    assert sum(heard) == (tmp_path / "whole").stat().st_size


def test_a_header_longer_than_a_chunk_is_written(tmp_path: Path) -> None:
    start = os.urandom(CHUNK_BYTES + 1)
    direct_io.write(tmp_path / "whole", start, parts(tmp_path, [b"end"]), on_bytes=lambda _: None)
    assert (tmp_path / "whole").read_bytes() == start + b"end"


def test_a_file_system_without_direct_writes_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refusing(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            opened(path, flags & ~os.O_DIRECT, mode)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, mode)

    sources = parts(tmp_path, [b"end"])
    monkeypatch.setattr(os, "open", refusing)
    direct_io.write(tmp_path / "whole", b"start ", sources, on_bytes=lambda _: None)
    assert (tmp_path / "whole").read_bytes() == b"start end"


def test_a_part_shorter_than_announced_is_an_error(tmp_path: Path) -> None:
    (part,) = parts(tmp_path, [b"cut"])
    longer = Part(10, part.open)
    with pytest.raises(OSError, match="shorter than announced"):
        direct_io.write(tmp_path / "whole", b"", [longer], on_bytes=lambda _: None)


def test_a_full_disk_is_noticed_before_anything_is_copied(tmp_path: Path) -> None:
    code = (
        "import errno, sys, pathlib; from registry.blobs import direct_io\n"
        "def opened(): raise AssertionError\n"
        "try:\n"
        "    direct_io.write(pathlib.Path(sys.argv[1]) / 'large', b'',\n"
        "                 [direct_io.Part(2 << 20, opened)], on_bytes=lambda _: None)\n"
        "except OSError as error:\n"
        "    assert error.errno == errno.ENOSPC\n"
        "    print('refused')"
    )
    assert small_disk.run(code, tmp_path) == "refused\n"


def parts(folder: Path, contents: list[bytes]) -> list[Part]:
    made = []
    for number, content in enumerate(contents):
        path = folder / f"part-{number}"
        path.write_bytes(content)
        made.append(Part(len(content), partial(FileIO, path)))
    return made
