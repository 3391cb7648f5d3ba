"""Requests are sent again for a limited time while the service is away."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from registry.errors import InvalidInput, NexusmixError, NotFound, Unavailable
from service.client import connection
from service.client.connection import MAX_ATTEMPTS, Connection

Answer = tuple[int, bytes]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.0)


class Handler(BaseHTTPRequestHandler):
    """Gives the answers of its server one after the other, and repeats the last one."""

    server: "Answering"

    def do_GET(self) -> None:
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.server.requests.append(dict(self.headers))
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        kind = "text/event-stream" if body.startswith((b"data", b":", b"id")) else "text/plain"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Answering(ThreadingHTTPServer):
    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.requests: list[dict[str, str]] = []


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[Connection, Answering]]:
    server = Answering(list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    client = Connection(f"http://127.0.0.1:{server.server_port}", key="nxm_key")
    try:
        yield client, server
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def problem(code: str) -> bytes:
    errors = [{"pointer": "/name", "detail": "is wrong"}]
    return json.dumps({"code": code, "detail": "no", "errors": errors}).encode()


@pytest.mark.parametrize("away", [0, 502, 503, 504])
def test_a_service_that_is_away_for_a_moment(away: int) -> None:
    with answering((away, b""), (away, b""), (200, b'{"a": 1}')) as (client, server):
        assert client.get("/health") == {"a": 1}
        assert len(server.requests) == 3
        assert server.requests[-1]["Authorization"] == "Bearer nxm_key"


@pytest.mark.parametrize("away", [0, 503])
def test_a_service_that_stays_away(away: int) -> None:
    with answering((away, b"")) as (client, server):
        with pytest.raises(Unavailable):
            client.get("/health")
        assert len(server.requests) == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (422, problem("invalid_input"), InvalidInput),
        (418, problem("short_and_stout"), NexusmixError),
        (404, b"<html>", NotFound),
        (403, b"<html>", Unavailable),
        (500, b"[]", Unavailable),
    ],
)
def test_what_is_refused_is_not_sent_again(
    status: int, body: bytes, kind: type[NexusmixError]
) -> None:
    with answering((status, body)) as (client, server):
        with pytest.raises(kind) as refused:
            client.get("/mixes")
        assert type(refused.value) is kind
        assert len(server.requests) == 1


def test_a_problem_keeps_its_pointers() -> None:
    with answering((422, problem("invalid_input"))) as (client, _):
        with pytest.raises(InvalidInput) as refused:
            client.get("/mixes")
        assert [(p.pointer, p.detail) for p in refused.value.problems] == [("/name", "is wrong")]


def test_a_file_goes_on_where_it_was() -> None:
    heard: list[int] = []
    file = io.BytesIO()
    with answering((206, b"abc"), (0, b""), (206, b"def")) as (client, server):
        client.fetch("/blobs/x", file, num_bytes=6, on_bytes=heard.append)
        assert file.getvalue() == b"abcdef"
        assert [request["Range"] for request in server.requests] == [
            "bytes=0-5", "bytes=3-5", "bytes=3-5"
        ]  # fmt: skip
    assert heard == [3, 3]


def test_events_are_read_past_pings() -> None:
    event = '{"id": 7, "type": "message", "message": "m", "data": {}, "created_at": "2026-12-01"}'
    body = f"id: 7\ndata: {event}\n\n: ping\n\n".encode()
    with answering((200, body)) as (client, server):
        assert [found.id for found in client.events("/mixes/m/events", last_id=3)] == [7]
        assert server.requests[0]["Last-Event-ID"] == "3"


def test_a_story_without_more_events() -> None:
    with answering((204, b"")) as (client, _):
        assert list(client.events("/mixes/m/events", last_id=3)) == []


def test_a_page_that_is_no_story() -> None:
    with answering((200, b"<html>")) as (client, _), pytest.raises(httpx.TransportError):
        list(client.events("/mixes/m/events", last_id=0))
