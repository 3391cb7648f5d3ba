"""Connections that ask for too much, or nothing, end; real sockets on a real server."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection

import pytest

from registry.settings import settings
from service.web import connections

# Far longer than any of the limits that are set here.
PATIENCE_SECONDS = 30.0
PIECE_BYTES = 2**16

Set = Callable[[str, object], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Set:
    def set_limit(name: str, value: object) -> None:
        monkeypatch.setenv(f"NEXUSMIX_{name.upper()}", str(value))
        settings.cache_clear()

    return set_limit


@contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    received = b""
    while True:
        try:
            piece = connection.recv(PIECE_BYTES)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def test_a_header_that_is_too_long_is_refused(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        num_sent = 0
        try:
            while num_sent < 20 * 2**20:
                connection.sendall(b"x" * PIECE_BYTES)
                num_sent += PIECE_BYTES
        except (ConnectionResetError, BrokenPipeError):
            pass
        # The server has read a little more than the limit, and the system keeps some.
        assert num_sent < 20 * 2**20
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"x" * (PIECE_BYTES + 1))
        assert b" 431 " in answer(connection)


def test_a_whole_header_that_is_too_long_is_refused(address: str) -> None:
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(connections.MAX_HEADERS + 1))
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 431 ")


def test_a_header_that_never_ends_is_refused(address: str, limit: Set) -> None:
    limit("header_seconds", 0.2)
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX")
        assert answer(connection).startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed(address: str, limit: Set) -> None:
    limit("header_seconds", 0.2)
    with connected(address) as connection:
        assert answer(connection) == b""


def test_line_ends_keep_no_connection_open(address: str, limit: Set) -> None:
    limit("header_seconds", 0.2)
    with connected(address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_the_rest_of_a_refused_body_keeps_no_connection_open(address: str, limit: Set) -> None:
    limit("header_seconds", 0.2)
    with connected(address) as connection:
        connection.sendall(
            b"PUT /api/v1/blobs/" + b"a" * 64 + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\nhalf"
        )
        assert answer(connection).startswith(b"HTTP/1.1 401 ")


def test_connections_beyond_the_limit_are_refused(address: str, limit: Set) -> None:
    limit("max_connections", 3)
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(connected(address)) for _ in range(3)]
        with connected(address) as fourth:
            assert answer(fourth).startswith(b"HTTP/1.1 503 ")
        first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert answer(first).startswith(b"HTTP/1.1 200 ")


def test_usual_requests_follow_each_other_on_a_connection(address: str) -> None:
    connection = HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_SECONDS)
    for _ in range(3):
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b'{"status":"ok"}')
    connection.close()
