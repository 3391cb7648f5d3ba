"""No address, name or redirect leads a server inwards; a slow answer is given up."""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from registry.errors import InvalidInput, TimedOut, Unavailable
from registry.fetching import addresses, url_file
from registry.fetching.addresses import UrlAddress
from registry.fetching.fetched import Fetched
from registry.fetching.outward import only_outward
from registry.origins import origin_of
from tests import hub
from tests.hub import Repo, TinyHub

FILE = "tiny/files/bytes/a.gguf"
CONTENT = b"GGUF" * 5000


@pytest.fixture
def allowed() -> Iterator[TinyHub]:
    with hub.serving(files=Repo({"a.gguf": CONTENT})) as served:
        yield served


@pytest.fixture
def inner() -> Iterator[TinyHub]:
    with hub.serving(files=Repo({"a.gguf": CONTENT})) as served:
        yield served


def outward(*servers: TinyHub, bytes_per_second: int = 1) -> AbstractContextManager[None]:
    allowed = [origin_of(server.address) for server in servers]
    return only_outward(allowed, bytes_per_second=bytes_per_second, grace_seconds=0.0)


def fetch(url: str, cache: Path) -> Fetched:
    address = addresses.parse(url)
    assert isinstance(address, UrlAddress)
    return url_file.fetch(address, cache)


def resolve(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    """Let every name have these IP addresses."""
    kind = socket.SOCK_STREAM
    places = [(socket.AF_INET6 if ":" in a else socket.AF_INET, kind, 6, "", (a, 0)) for a in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)


def test_what_is_allowed_is_fetched(allowed: TinyHub, tmp_path: Path) -> None:
    with outward(allowed):
        assert fetch(f"{allowed.address}/{FILE}", tmp_path).path.read_bytes() == CONTENT


def test_a_redirect_inwards_is_refused_before_it_is_followed(
    allowed: TinyHub, inner: TinyHub, tmp_path: Path
) -> None:
    allowed.redirects["/open.gguf"] = f"{inner.address}/{FILE}"
    with outward(allowed), pytest.raises(InvalidInput, match="does not fetch from http://127"):
        fetch(f"{allowed.address}/open.gguf", tmp_path)
    assert not inner.requests
    with outward(allowed, inner):
        assert fetch(f"{allowed.address}/open.gguf", tmp_path).path.read_bytes() == CONTENT


@pytest.mark.parametrize("found", [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::1"], []])
def test_a_name_that_leads_inwards_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    resolve(monkeypatch, *found)
    with outward(), pytest.raises(InvalidInput, match=r"'example\.com': its address is not public"):
        fetch("https://example.com/a.gguf", tmp_path)


def test_the_address_that_was_looked_at_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def connect(address: object, *_: object, **__: object) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError

    resolve(monkeypatch, "93.184.215.14")
    monkeypatch.setattr(socket, "create_connection", connect)
    with outward(), pytest.raises(Unavailable, match="did not arrive"):
        fetch("https://example.com/a.gguf", tmp_path)
    assert set(asked) == {("93.184.215.14", 443)}


def test_an_unknown_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with outward(), pytest.raises(Unavailable, match=r"'example\.com' cannot be found"):
        fetch("https://example.com/a.gguf", tmp_path)


def test_too_many_redirects_end(allowed: TinyHub, tmp_path: Path) -> None:
    allowed.redirects["/open.gguf"] = f"{allowed.address}/open.gguf"
    with outward(allowed), pytest.raises(Unavailable, match="did not arrive"):
        fetch(f"{allowed.address}/open.gguf", tmp_path)
    assert len(allowed.requests) < 10


def test_a_slow_answer_is_given_up(allowed: TinyHub, tmp_path: Path) -> None:
    with (
        outward(allowed, bytes_per_second=10**12),
        pytest.raises(TimedOut, match="bytes a second, at least 1000000000000 are expected"),
    ):
        fetch(f"{allowed.address}/{FILE}", tmp_path)


def test_afterwards_the_library_asks_as_before(allowed: TinyHub, tmp_path: Path) -> None:
    with outward():
        pass
    assert fetch(f"{allowed.address}/{FILE}", tmp_path).path.read_bytes() == CONTENT
