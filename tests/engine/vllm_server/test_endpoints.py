"""Engines behind sockets and ports."""

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import BaseServer, UnixStreamServer

import httpx
import pytest

from engine.vllm_server import endpoints
from tests.coroutines import result_of


class Echo(BaseHTTPRequestHandler):
    """Answers with the key that it was asked with."""

    def do_GET(self) -> None:
        body = self.headers.get("authorization", "none").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A client on a Unix socket has no address to log."""


@contextmanager
def running(server: BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def on_a_socket(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "engine.sock"
    with running(UnixStreamServer(str(path), Echo)):
        yield f"unix:{path}"


@pytest.fixture
def on_a_port() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Echo)
    with running(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_the_key_is_made_once_and_for_its_owner() -> None:
    assert endpoints.find_key() is None
    endpoints.make_key()
    key = endpoints.find_key()
    endpoints.make_key()
    assert key is not None
    assert endpoints.find_key() == key
    assert endpoints.key_path().stat().st_mode & 0o777 == 0o600


def test_only_ports_get_the_key(on_a_socket: str, on_a_port: str) -> None:
    endpoints.make_key()
    with endpoints.client(on_a_socket, timeout=10) as client:
        assert client.get("/").text == "none"
    with endpoints.client(on_a_port, timeout=10) as client:
        assert client.get("/").text == f"Bearer {endpoints.find_key()}"


def test_one_client_reaches_all_engines(on_a_socket: str, on_a_port: str, tmp_path: Path) -> None:
    async def ask(*addresses: str) -> list[int]:
        transport = endpoints.Transport(httpx.Limits())
        async with httpx.AsyncClient(transport=transport) as client:
            return [
                (await client.get(endpoints.url(a), extensions={"engine": a})).status_code
                for a in addresses
            ]

    assert result_of(ask(on_a_socket, on_a_port, on_a_socket)) == [200, 200, 200]
    with pytest.raises(httpx.ConnectError):
        result_of(ask(f"unix:{tmp_path}/gone.sock"))


def test_vllm_says_that_its_core_has_died_in_these_words() -> None:
    """Read, not imported: vLLM takes seconds to import."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    words = (Path(spec.origin).parent / "v1/engine/exceptions.py").read_bytes()
    assert endpoints.CORE_HAS_DIED in words
    assert endpoints.has_died(500, words)
    assert not endpoints.has_died(200, words)
