"""Sends blobs over HTTP, as a client does after an announcement."""

import hashlib
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from registry.ingest.checkpoint_folder import CheckpointFolder


def put_blob(client: TestClient, data: bytes) -> str:
    """Send a blob that is new for this client, and return its digest."""
    digest = hashlib.sha256(data).hexdigest()
    assert client.put(f"/api/v1/blobs/{digest}", content=data).status_code == 201
    return digest


def send(client: TestClient, folder: Path, missing: list[dict[str, Any]]) -> None:
    """Send the blobs of a checkpoint folder that an announcement found missing."""
    sources = CheckpointFolder.read(folder).sources
    for blob in missing:
        assert client.put(blob["url"], content=sources[blob["digest"]].chunks()).status_code == 201
