"""Repositories are fetched from a Hub by the library that everybody uses.

Covers: remote_file.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub.file_download import http_get

from registry.checkpoints.manifests import Origin
from registry.errors import (
    Forbidden,
    InvalidCheckpoint,
    NexusmixError,
    NotFound,
    OutOfSpace,
    TooLarge,
    Unavailable,
)
from registry.fetching import addresses, remote_file
from registry.fetching.addresses import HubAddress
from registry.fetching.fetched import Fetched
from registry.fetching.hub import Hub
from registry.ingest.checkpoint_folder import check_headers
from tests import hub, tiny, tiny_gguf
from tests.hub import COMMIT, Repo, TinyHub

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "seed")


@pytest.fixture
def served(folder: Path) -> Iterator[TinyHub]:
    with hub.serving(seed=Repo.of(folder)) as served:
        yield served


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second that the library waits after a broken line, and its 10 MB of memory."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fetch(served: TinyHub, cache: Path, address: str = "hf:tiny/seed", **about: object) -> Fetched:
    client = replace(Hub(endpoint=served.address, token_hint="ask"), **about)  # type: ignore[arg-type]  # fields by name
    parsed = addresses.parse(address)
    assert isinstance(parsed, HubAddress)
    return client.fetch(parsed, cache)


def test_a_model_is_fetched_once_and_named_by_its_commit(
    served: TinyHub, folder: Path, cache: Path
) -> None:
    served.repos["tiny/seed"].files |= {"pytorch_model.bin": b"pickle", ".gitattributes": b"x"}
    reports: list[tuple[int, int]] = []
    address = HubAddress("tiny/seed")
    client = Hub(endpoint=served.address)
    fetched = client.fetch(address, cache, on_progress=lambda *news: reports.append(news))

    assert fetched.origin == Origin(address="hf:tiny/seed@main", commit_hash=COMMIT)
    assert {path.name: path.read_bytes() for path in fetched.path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    size = (folder / WEIGHTS).stat().st_size
    assert reports[-1] == (size, size)
    check_headers(fetched.path)
    assert fetch(served, cache) == fetched
    assert len(served.asked(WEIGHTS)) == 1


def test_a_broken_line_is_taken_up_where_it_broke(
    served: TinyHub, folder: Path, cache: Path
) -> None:
    weights = (folder / WEIGHTS).read_bytes()
    served.cuts = {WEIGHTS: [5000, 0, 6000]}
    fetched = fetch(served, cache)

    assert (fetched.path / WEIGHTS).read_bytes() == weights
    starts = [headers.get("Range") for headers in served.asked(WEIGHTS)]
    assert starts == [None, "bytes=5000-", "bytes=5000-", "bytes=11000-"]


def test_the_next_call_goes_on_after_a_call_that_gave_up(
    served: TinyHub, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = fetch(served, cache).path
    (gone / WEIGHTS).rename(remote_file.part_of(gone / WEIGHTS))
    with remote_file.part_of(gone / WEIGHTS).open("r+b") as part:
        part.truncate(7000)
    served.cuts = {WEIGHTS: [0] * 100}
    with pytest.raises(Unavailable, match=r"model\.safetensors of .* did not arrive"):
        fetch(served, cache)
    served.cuts = {}
    assert (fetch(served, cache).path / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert served.asked(WEIGHTS)[-1]["Range"] == "bytes=7000-"


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_bytes_with_another_digest_are_removed(served: TinyHub, cache: Path, name: str) -> None:
    data = served.repos["tiny/seed"].files[name]
    served.repos["tiny/seed"].wrong = {name: bytes([data[0] ^ 1]) + data[1:]}
    with pytest.raises(InvalidCheckpoint, match=f"{name} of .* arrived with the SHA"):
        fetch(served, cache)
    served.repos["tiny/seed"].wrong = {}
    assert (fetch(served, cache).path / name).read_bytes() == data


def test_more_bytes_than_announced_are_refused(served: TinyHub, cache: Path) -> None:
    data = served.repos["tiny/seed"].files[WEIGHTS]
    served.repos["tiny/seed"].wrong = {WEIGHTS: data + b"more"}
    with pytest.raises(InvalidCheckpoint, match="has more bytes than the"):
        fetch(served, cache)


def test_a_gated_repository_needs_a_token(served: TinyHub, cache: Path) -> None:
    repo = served.repos["tiny/seed"]
    repo.token, repo.is_gated = "hf_secret", True
    with pytest.raises(Forbidden, match="of hf:tiny/seed@main is gated: ask"):
        fetch(served, cache)
    fetch(served, cache, token="hf_secret")


def test_the_token_is_the_users_and_is_not_shown_to_other_hosts(
    served: TinyHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    served.cdn = served.address.replace("127.0.0.1", "localhost")
    served.repos["tiny/seed"].token = "hf_secret"
    fetch(served, cache)
    [(_, _, first), *_] = served.requests
    assert first["authorization"] == "Bearer hf_secret"
    [bytes_asked] = served.asked(WEIGHTS)
    assert not {"authorization", "Authorization"} & bytes_asked.keys()


def test_a_token_that_is_not_meant_is_not_sent(
    served: TinyHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(served, cache, token=False)
    assert not any("hf_secret" in str(headers) for _, _, headers in served.requests)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("hf:tiny/nothing", "hf:tiny/nothing@main does not exist, or is private: ask"),
        ("hf:tiny/seed@v9", "hf:tiny/seed@v9 names a revision that its repository does not have"),
    ],
)
def test_what_does_not_exist_is_said(
    served: TinyHub, cache: Path, address: str, sentence: str
) -> None:
    with pytest.raises(NotFound, match=sentence):
        fetch(served, cache, address)


def test_a_server_that_is_no_hub_is_said(served: TinyHub, cache: Path) -> None:
    with pytest.raises(NexusmixError, match="hf:tiny/seed@main"):
        fetch(replace(served, address=f"{served.address}/other"), cache)


def test_a_hub_that_is_away_is_said(cache: Path) -> None:
    with hub.serving() as gone:
        pass
    with pytest.raises(Unavailable, match="hf:tiny/seed@main did not arrive"):
        fetch(gone, cache)


def test_an_offline_library_is_said(
    served: TinyHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="since HF_HUB_OFFLINE is set"):
        fetch(served, cache)


def test_sharded_weights_are_those_of_the_index(served: TinyHub, folder: Path, cache: Path) -> None:
    files, shard = served.repos["tiny/seed"].files, "model-00001-of-00001.safetensors"
    files[shard] = files.pop(WEIGHTS)
    files["old-00001-of-00002.safetensors"] = b"old"
    index = {"weight_map": dict.fromkeys(tiny.tensors(), shard)}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    fetched = fetch(served, cache).path
    assert not (fetched / "old-00001-of-00002.safetensors").exists()
    check_headers(fetched)


def test_a_gguf_file_is_fetched_alone(served: TinyHub, cache: Path, tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "tiny.gguf")
    served.repos["tiny/gguf"] = Repo({"tiny.gguf": file.read_bytes(), "config.json": b"{}"})
    fetched = fetch(served, cache, "hf:tiny/gguf")
    assert fetched.path.name == "tiny.gguf"
    assert fetched.path.read_bytes() == file.read_bytes()
    assert [path.name for path in fetched.path.parent.iterdir()] == ["tiny.gguf"]


def test_a_file_over_the_limit_is_refused_before_its_bytes(served: TinyHub, cache: Path) -> None:
    with pytest.raises(TooLarge, match=r"model\.safetensors has .* bytes or more, at most 9000"):
        fetch(served, cache, max_bytes=9000)
    assert not served.asked(WEIGHTS)


def test_a_full_disk_is_said_before_bytes(
    served: TinyHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 5, 4))
    with pytest.raises(OutOfSpace, match="no room for"):
        fetch(served, cache)


def test_the_library_goes_on_in_a_file(served: TinyHub, folder: Path, tmp_path: Path) -> None:
    """What `remote_file` relies on: a part is completed, and bytes are written in order."""
    data, part = (folder / WEIGHTS).read_bytes(), tmp_path / "part"
    part.write_bytes(data[:100])
    with part.open("ab") as file:
        http_get(f"{served.address}/tiny/seed/bytes/{WEIGHTS}", file, resume_size=100)
    assert part.read_bytes() == data
