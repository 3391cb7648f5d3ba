"""Uploads that stall hold up nobody else."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
from starlette.testclient import TestClient

from registry.settings import settings
from service.web import sent_bytes
from tests.service.web.test_connections import answer, connected

# More than the threads of the web process.
NUM_STALLED = 60


@contextmanager
def stalled(address: str, key: str, number: int) -> Iterator[None]:
    """Hold uploads that are being received and send nothing more."""
    with ExitStack() as stack:
        for index in range(number):
            digest = hashlib.sha256(str(index).encode()).hexdigest()
            connection = stack.enter_context(connected(address))
            connection.sendall(
                f"PUT /api/v1/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {key}\r\nContent-Length: 1000\r\n"
                "Expect: 100-continue\r\n\r\n".encode()
            )
            # The server asks for the body when it begins to receive it.
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            connection.sendall(b"half")
        yield


def test_stalled_uploads_hold_up_nobody(address: str, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    data = b"x" * (3 * sent_bytes.PIECE_BYTES + 1)
    digest = hashlib.sha256(data).hexdigest()
    with stalled(address, key, NUM_STALLED), httpx.Client(base_url=address, timeout=20) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/v1/models", headers=headers).status_code == 200
        sent = client.put(f"/api/v1/blobs/{digest}", content=data, headers=headers)
        assert sent.status_code == 201
        found = client.head(f"/api/v1/blobs/{digest}", headers=headers)
        assert found.headers["content-length"] == str(len(data))


def test_one_key_sends_a_few_at_a_time(
    address: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_UPLOADS_PER_KEY", "2")
    settings.cache_clear()
    with stalled(address, key, 2), connected(address) as third:
        third.sendall(
            f"PUT /api/v1/blobs/{'a' * 64} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        assert answer(third).startswith(b"HTTP/1.1 429 ")


def test_a_body_beyond_the_limit_is_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_UPLOAD_BYTES", "10")
    settings.cache_clear()
    refused = client.put(f"/api/v1/blobs/{'a' * 64}", content=iter([b"x" * 6] * 2))
    assert refused.status_code == 413
