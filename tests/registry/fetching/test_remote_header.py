"""Headers are fetched by ranges, and nothing of the weights behind them."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.checkpoints.safetensors_header import read_raw_header
from registry.errors import InvalidCheckpoint, InvalidInput, Unavailable
from registry.fetching import remote_file, remote_header
from registry.fetching.outward import only_outward
from registry.imports import gguf_header
from registry.origins import origin_of
from tests import hub, tiny, tiny_gguf
from tests.hub import Repo, TinyHub

SAFETENSORS, GGUF = "model.safetensors", "tiny.gguf"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TinyHub]:
    files = {
        SAFETENSORS: tiny.safetensors_bytes(),
        GGUF: tiny_gguf.write(tmp_path / GGUF).read_bytes(),
        "pointer.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "short.safetensors": b"1234",
        "empty.safetensors": b"",
        "text.gguf": b"a text",
    }
    with hub.serving(files=Repo(files)) as served:
        yield served


def url_of(served: TinyHub, name: str) -> str:
    return f"{served.address}/tiny/files/bytes/{name}"


def fetch(served: TinyHub, name: str, folder: Path, *, url: str | None = None) -> Path | None:
    """Return the file that has the header, None if the server sends whole files only."""
    path = folder / "headers" / name
    path.parent.mkdir(exist_ok=True)
    is_there = remote_header.fetch(
        url or url_of(served, name),
        path,
        size=len(served.repos["tiny/files"].files[name]),
        what=name,
        headers=remote_file.HEADERS,
        hint="ask",
    )
    assert is_there == path.exists()
    return path if is_there else None


def test_a_safetensors_header_takes_two_requests(served: TinyHub, tmp_path: Path) -> None:
    path = fetch(served, SAFETENSORS, tmp_path)
    assert path is not None
    assert read_raw_header(path) == tiny.safetensors_header()
    assert path.stat().st_size == len(tiny.safetensors_bytes())
    end = 8 + len(tiny.safetensors_header())
    asked = [headers["Range"] for headers in served.asked(SAFETENSORS)]
    assert asked == ["bytes=0-7", f"bytes=8-{end - 1}"]
    assert served.sent[SAFETENSORS] == end


def test_a_gguf_header_is_read_as_far_as_it_goes(
    served: TinyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "FIRST_BYTES", 16)
    path = fetch(served, GGUF, tmp_path)
    assert path is not None
    assert gguf_header.read(path) == gguf_header.read(tmp_path / GGUF)
    assert path.stat().st_size == (tmp_path / GGUF).stat().st_size
    # The header alone is longer than a quarter of what was fetched for it.
    first = min(tensor.start for tensor in gguf_header.read(path).tensors.values())
    assert first - 64 < served.sent[GGUF] < 4 * first + 16


@pytest.mark.parametrize("name", ["pointer.safetensors", "short.safetensors", "empty.safetensors"])
def test_what_is_no_safetensors_is_left_to_the_check(
    served: TinyHub, tmp_path: Path, name: str
) -> None:
    path = fetch(served, name, tmp_path)
    assert path is not None
    assert path.read_bytes() == served.repos["tiny/files"].files[name]


def test_what_is_no_gguf_is_refused(served: TinyHub, tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="does not begin as GGUF does"):
        fetch(served, "text.gguf", tmp_path)


def test_a_header_over_the_limit_is_refused(
    served: TinyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_header, "MAX_HEADER_BYTES", 1000)
    monkeypatch.setattr(remote_header, "FIRST_BYTES", 512)
    with pytest.raises(InvalidCheckpoint, match="has a header of more than 1000 bytes"):
        fetch(served, GGUF, tmp_path)
    path = fetch(served, SAFETENSORS, tmp_path)
    assert path is not None
    assert served.sent[SAFETENSORS] == remote_header.BEGINNING_BYTES
    assert struct.unpack("<Q", path.read_bytes()[:8]) == (len(tiny.safetensors_header()),)


def test_a_server_that_sends_whole_files_only_is_told_apart(
    served: TinyHub, tmp_path: Path
) -> None:
    served.has_ranges = False
    assert fetch(served, SAFETENSORS, tmp_path) is None
    assert fetch(served, GGUF, tmp_path) is None
    assert not remote_header.fetch(
        url_of(served, GGUF), tmp_path / "none", size=None, what=GGUF, headers={}, hint="ask"
    )


def test_a_broken_line_is_taken_up(served: TinyHub, tmp_path: Path) -> None:
    served.cuts = {SAFETENSORS: [3, 0, 0, 5]}
    path = fetch(served, SAFETENSORS, tmp_path)
    assert path is not None
    assert read_raw_header(path) == tiny.safetensors_header()
    served.cuts = {SAFETENSORS: [0, 0, 0]}
    with pytest.raises(Unavailable, match=r"the header of model\.safetensors did not arrive"):
        fetch(served, SAFETENSORS, tmp_path)


def test_a_redirect_inwards_is_refused_before_it_is_followed(
    served: TinyHub, tmp_path: Path
) -> None:
    with hub.serving(files=Repo({GGUF: b"GGUF" * 5000})) as inner:
        served.redirects["/open.gguf"] = url_of(inner, GGUF)
        guarded = only_outward([origin_of(served.address)], bytes_per_second=1, grace_seconds=9.0)
        with guarded, pytest.raises(InvalidInput, match="does not fetch from http://127"):
            fetch(served, GGUF, tmp_path, url=f"{served.address}/open.gguf")
        assert not inner.requests
