"""Adapters are registered over REST, and come back as peft reads them.

Covers: service.schemas.imports, registry.fetching.announcements.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.catalog import documents, experts
from registry.database import db
from registry.ingest import own_imports
from registry.ingest.adapter_folder import AdapterFolder
from tests import factories, tiny, tiny_adapters, tiny_gguf
from tests.service.sending import put_blob

LAW = "/api/v1/experts/law"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_adapters.write(tmp_path / "adapter")


@pytest.fixture
def body(client: TestClient, store: BlobStore, folder: Path) -> dict[str, Any]:
    with db.transaction() as session:
        factories.make_family(session, store)
    sample = documents.serialize(tiny.sample_documents(expert=1))
    return {
        "family": "tiny",
        "license": "CC0-1.0",
        "documents": put_blob(client, sample),
        "adapter": AdapterFolder.read(folder).announcement,
    }


def test_an_adapter_is_announced_sent_and_downloaded(
    client: TestClient, store: BlobStore, body: dict[str, Any], folder: Path
) -> None:
    begun = client.post(f"{LAW}/imports", json=body)
    assert begun.status_code == 201, begun.text
    assert begun.json()["manifest_digest"] is None
    [missing] = begun.json()["missing"]
    assert missing["size"] == body["adapter"]["weights"]["size"]
    data = (folder / "adapter_model.safetensors").read_bytes()
    assert client.put(missing["url"], content=data).status_code == 201
    completed = client.post(f"{LAW}/versions/1/complete").json()
    assert completed["state"] == "importing"
    assert completed["notes"][0].startswith("LoRA adapter of rank 4")
    assert client.get(f"{LAW}/versions/1/adapter").status_code == 409
    assert "importing" in client.get("/experts/law").text

    with db.transaction() as session:
        version = experts.find_version(session, expert="law", number=1)
        digest = tiny.store_manifest(store, expert=1).digest
        experts.mark_imported(session, version.id, manifest_digest=digest)
        experts.mark_checked(session, version.id)
        experts.mark_embedded(session, version.id)
    listed = client.get(f"{LAW}/versions/1/adapter").json()["data"]
    assert [file["name"] for file in listed] == ["adapter_config.json", "adapter_model.safetensors"]
    for file in listed:
        sent = client.get(f"{LAW}/versions/1/adapter/{file['name']}").content
        assert (file["size"], file["digest"]) == (len(sent), hashlib.sha256(sent).hexdigest())
    assert client.get(f"{LAW}/versions/1/adapter/adapter_model.safetensors").content == data
    config = client.get(f"{LAW}/versions/1/adapter/adapter_config.json").json()
    assert config == tiny_adapters.config()
    assert client.get(f"{LAW}/versions/1/adapter/other").status_code == 404
    assert client.get(LAW).json()["notes"] == completed["notes"]


def test_an_adapter_of_another_base_is_refused_before_its_bytes(
    client: TestClient, body: dict[str, Any]
) -> None:
    body["adapter"]["config"]["r"] = 8
    answer = client.post(f"{LAW}/imports", json=body)
    assert answer.status_code == 422
    assert "the config asks rank 8" in answer.json()["errors"][0]["detail"]


def test_a_gguf_file_is_announced(client: TestClient, body: dict[str, Any], tmp_path: Path) -> None:
    imported = own_imports.read(tiny_gguf.write(tmp_path / "tiny.gguf"))
    assert imported is not None
    del body["adapter"]
    begun = client.post(f"{LAW}/imports", json=body | imported.announcement)
    assert begun.status_code == 201, begun.text
    assert begun.json()["notes"][0].startswith("GGUF file, dequantized from BF16 (15 tensors)")

    imported.announcement["gguf"]["tensors"]["token_embd.weight"]["type"] = "Q9"
    refused = client.post(f"{LAW}/imports", json=body | imported.announcement)
    assert refused.status_code == 422
    assert "has the type Q9; read are F32" in refused.json()["errors"][0]["detail"]


def test_an_import_has_one_source(client: TestClient, body: dict[str, Any]) -> None:
    del body["adapter"]
    assert client.post(f"{LAW}/imports", json=body).status_code == 422


def test_an_address_is_announced_and_left_to_a_worker(
    client: TestClient, body: dict[str, Any]
) -> None:
    del body["adapter"]
    begun = client.post(f"{LAW}/imports", json=body | {"from": "hf:owner/name@v1"})
    assert begun.status_code == 201, begun.text
    assert begun.json()["notes"] == ["from hf:owner/name@v1"]
    assert begun.json()["missing"] == []
    completed = client.post(f"{LAW}/versions/1/complete").json()
    assert completed["state"] == "importing"
    again = client.post(f"{LAW}/imports", json=body | {"from": "hf:owner/name@v1"})
    assert again.json()["ref"] == "law@1"
    other = client.post(f"{LAW}/imports", json=body | {"from": "hf:owner/name@v2"})
    assert other.json()["ref"] == "law@2"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"from": "hf:a/b/c"}, "'a/b/c' is no repository"),
        ({"from": "ftp://example.com/a.gguf"}, "cannot be imported: give hf:"),
        ({"from": "http://example.com/a.gguf"}, "only https at port 443"),
        ({"from": "https://127.0.0.1/a.gguf"}, "its address is not public"),
        ({"from": "https://2130706433/a.gguf"}, "its address is not public"),
        ({"from": "https://[::ffff:10.0.0.1]/a.gguf"}, "its address is not public"),
        ({"from": "hf:o/n", "adapter": {}}, ""),
        ({"from": "hf:o/n", "origin": {"address": "hf:o/n"}}, "the worker that fetches says"),
        ({"from": ""}, ""),
        ({"from": ["hf:o/n"]}, ""),
        ({"from": "hf:o/n\u0000"}, ""),
        ({"address": "hf:o/n"}, ""),
    ],
)
def test_an_address_that_cannot_be_imported_is_refused_at_once(
    client: TestClient, body: dict[str, Any], more: dict[str, Any], sentence: str
) -> None:
    del body["adapter"]
    answer = client.post(f"{LAW}/imports", json=body | more)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert client.get(LAW).status_code == 404


def test_a_checkpoint_has_no_adapter(client: TestClient, store: BlobStore) -> None:
    with db.transaction() as session:
        expert = factories.make_expert(session, factories.make_family(session, store), name="law")
        factories.make_version(session, expert, store)
    assert client.get(f"{LAW}/versions/1/adapter").status_code == 404
