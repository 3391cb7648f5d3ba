"""Answers that nobody reads end, whatever they are an answer to; real sockets on a real server."""

import asyncio
import dataclasses
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from engine.serving.tables import DeploymentState
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import experts
from registry.checkpoints import manifests
from registry.database import db
from tests.assembler import rows
from tests.service.conftest import serving
from tests.service.services import wait_for
from tests.service.upstream import deploy
from tests.service.web.test_connections import PATIENCE_SECONDS, Set, connected, limit

__all__ = ["limit"]

# More than the system holds for a connection on both sides.
FILE = "vocab.json"
NUM_BYTES = 32 * 2**20
PIECE = b"data: " + b"x" * 2**16 + b"\n\n"


class Talkative:
    """An engine that streams without an end, and knows whether it was left."""

    def __init__(self) -> None:
        self.left = threading.Event()
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.chat)

    async def chat(self) -> StreamingResponse:
        return StreamingResponse(self._talk(), media_type="text/event-stream")

    async def _talk(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECE
                await asyncio.sleep(0)
        finally:
            self.left.set()


@pytest.fixture
def engine() -> Talkative:
    return Talkative()


@pytest.fixture
def model(database: str, engine: Talkative) -> Iterator[str]:
    with serving(engine.app) as address:
        yield deploy("talkative", DeploymentState.READY, address=address)


@pytest.fixture
def path(store: BlobStore) -> str:
    """The path of a file of NUM_BYTES bytes."""
    with db.transaction() as session:
        version = rows.add_expert(session, store, rows.add_family(session, store), number=1)
        manifest = manifests.load(store, experts.checkpoint_digest(version))
        files = manifest.files | {FILE: put_bytes(store, bytes(NUM_BYTES))}
        large = dataclasses.replace(manifest, files=files)
        version.manifest_digest = manifests.store(store, large)
    return f"/api/v1/experts/expert-1/versions/1/files/{FILE}"


def ask(connection: socket.socket, line: str, key: str, *, body: bytes = b"") -> None:
    # A small window, so that the server soon has to wait.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    assert connection.recv(12) == b"HTTP/1.1 200"


def is_held(connection: socket.socket) -> bool:
    """Tell whether the server, which runs in this process, has the other end still open."""
    peer = connection.getsockname()
    return any(held.raddr == peer for held in psutil.Process().net_connections("tcp"))


def test_a_download_that_nobody_reads_is_cut(address: str, key: str, path: str, limit: Set) -> None:
    limit("answer_seconds", 1)
    with connected(address) as connection:
        ask(connection, f"GET {path}", key)
        wait_for(lambda: not is_held(connection), "the end of the connection")


def test_a_chat_that_nobody_reads_frees_its_slot_and_its_engine(
    address: str, key: str, model: str, engine: Talkative, limit: Set
) -> None:
    limit("answer_seconds", 1)
    limit("max_completions_per_key", 1)
    body = json.dumps({"model": model, "messages": [], "stream": True}).encode()
    for _ in range(2):
        engine.left.clear()
        with connected(address) as connection:
            ask(connection, "POST /v1/chat/completions", key, body=body)
            wait_for(engine.left.is_set, "the end of the engine's answer")


def test_a_client_that_reads_a_little_now_and_then_is_cut(
    address: str, key: str, path: str, limit: Set
) -> None:
    limit("answer_seconds", 1)
    with connected(address) as connection:
        ask(connection, f"GET {path}", key)
        num_read, began = 0, time.monotonic()
        try:
            while piece := connection.recv(4096):
                num_read += len(piece)
                assert time.monotonic() - began < PATIENCE_SECONDS
                time.sleep(0.2)
        except ConnectionResetError:
            pass
        assert num_read < NUM_BYTES


def test_a_slow_client_gets_everything(address: str, key: str, path: str, limit: Set) -> None:
    limit("answer_seconds", 0.5)
    headers = {"Authorization": f"Bearer {key}"}
    num_read = 0
    with httpx.stream("GET", address + path, headers=headers) as answer:
        for piece in answer.iter_raw(2**20):
            num_read += len(piece)
            # Several times the limit in all.
            time.sleep(0.1)
    assert num_read == NUM_BYTES
