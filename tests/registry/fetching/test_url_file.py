"""A GGUF file is fetched from any address.

Covers: fetched.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.checkpoints.manifests import Origin
from registry.errors import Conflict, Forbidden, NotFound, TooLarge, Unavailable
from registry.fetching import remote_file, url_file
from registry.fetching.addresses import UrlAddress
from registry.fetching.fetched import progress_text
from tests import hub
from tests.hub import Repo, TinyHub

CONTENT = b"GGUF" * 5000


@pytest.fixture
def served() -> Iterator[TinyHub]:
    with hub.serving(files=Repo({"a.gguf": CONTENT})) as served:
        yield served


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second that the library waits after a broken line, and its 10 MB of memory."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


def address_of(served: TinyHub, query: str = "") -> UrlAddress:
    return UrlAddress(f"{served.address}/tiny/files/bytes/a.gguf{query}")


def test_a_file_is_fetched_and_named_by_its_digest(served: TinyHub, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    address = address_of(served, "?signature=secret")
    fetched = url_file.fetch(address, tmp_path, on_progress=lambda *news: reports.append(news))

    assert fetched.path.name == "a.gguf"
    assert fetched.path.read_bytes() == CONTENT
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetched.origin == Origin(address=str(address_of(served)), digest=digest)
    assert reports[-1] == (20_000, 20_000)
    assert progress_text(*reports[-1]) == "0 of 0 MB fetched"
    assert url_file.fetch(address, tmp_path) == fetched
    assert len(served.asked("a.gguf")) == 1


def test_the_next_call_goes_on(served: TinyHub, tmp_path: Path) -> None:
    served.cuts = {"a.gguf": [7000, *[0] * 30]}
    with pytest.raises(Unavailable, match="did not arrive"):
        url_file.fetch(address_of(served), tmp_path)
    served.cuts = {}
    assert url_file.fetch(address_of(served), tmp_path).path.read_bytes() == CONTENT
    assert served.asked("a.gguf")[-1]["Range"] == "bytes=7000-"


@pytest.mark.parametrize("has_versions", [True, False])
def test_another_file_at_the_address_is_fetched_anew(
    served: TinyHub, tmp_path: Path, has_versions: bool
) -> None:
    served.has_versions = has_versions
    url_file.fetch(address_of(served), tmp_path)
    other = CONTENT[:-4] + b"LAST"
    served.repos["tiny/files"].files["a.gguf"] = other
    assert url_file.fetch(address_of(served), tmp_path).path.read_bytes() == other


def test_a_file_over_the_limit_is_refused(served: TinyHub, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="has 20000 bytes or more, at most 9000 are taken"):
        url_file.fetch(address_of(served), tmp_path, max_bytes=9000)
    assert not served.asked("a.gguf")
    served.has_versions = False
    with pytest.raises(TooLarge, match="has 10000 bytes or more, at most 9000 are taken"):
        url_file.fetch(address_of(served), tmp_path, max_bytes=9000)


def test_what_does_not_exist_or_needs_a_key_is_said(served: TinyHub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"/none\.gguf does not exist"):
        url_file.fetch(UrlAddress(f"{served.address}/none.gguf"), tmp_path)
    repo = served.repos["tiny/files"]
    repo.token, repo.is_gated = "hf_x", True
    closed = UrlAddress(f"{served.address}/tiny/files/resolve/main/a.gguf")
    with pytest.raises(Forbidden, match="fetch what needs a key yourself"):
        url_file.fetch(closed, tmp_path)


def test_two_processes_do_not_fetch_into_one_file(served: TinyHub, tmp_path: Path) -> None:
    path = url_file.fetch(address_of(served), tmp_path).path
    path.rename(remote_file.part_of(path))
    with remote_file.part_of(path).open("ab") as file:
        remote_file.hold(file, "a.gguf")
        with pytest.raises(Conflict, match="is being fetched by another process"):
            url_file.fetch(address_of(served), tmp_path)
