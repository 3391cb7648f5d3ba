"""Registration over HTTP: announcing, sending and completing, and what is refused.

Covers: assembler.routing.nearest_experts, service.schemas.checkpoints,
service.schemas.experts.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from assembler.routing.embedder import embedder_digest
from assembler.routing.numpy_encoder import query_encoder
from assembler.tables import JobEvent
from registry.blobs.blobs import BlobStore
from registry.catalog import experts, families
from registry.checkpoints import manifests
from registry.database import db
from registry.ingest.checkpoint_folder import CheckpointFolder
from tests import factories, tiny
from tests.service.sending import send

VERSIONS = "/api/v1/experts/law/versions"
FFN = "model.layers.1.mlp.up_proj.weight"
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture
def family(client: TestClient, store: BlobStore) -> str:
    with db.transaction() as session:
        return factories.make_family(session, store).name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "expert", expert=1)


@pytest.fixture
def body(folder: Path, family: str) -> dict[str, Any]:
    checkpoint = CheckpointFolder.read(folder)
    about = {"family": family, "license": "CC0-1.0", "documents": checkpoint.documents}
    return checkpoint.announcement | about


def refusal(client: TestClient, body: dict[str, Any], *, status: int = 422) -> dict[str, Any]:
    answer = client.post(VERSIONS, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    return problem


def change_header(body: dict[str, Any], name: str, **fields: Any) -> None:
    shard = body["shards"][0]
    header = json.loads(shard["header"])
    header[name] |= fields
    text = json.dumps(header)
    # Only the offsets are wrong: the length of the file matches its header and data.
    shard["size"] += len(text) - len(shard["header"])
    shard["header"] = text


def test_only_tensors_that_differ_from_the_seed_are_missing(
    client: TestClient, body: dict[str, Any], folder: Path
) -> None:
    begun = client.post(VERSIONS, json=body)
    assert begun.status_code == 201
    assert (begun.json()["state"], begun.json()["version"]) == ("uploading", 1)
    missing = begun.json()["missing"]
    ffn = {digest for name, digest in body["digests"].items() if ".mlp." in name}
    assert {blob["digest"] for blob in missing} == ffn | {body["documents"]}
    send(client, folder, missing[:2])
    again = client.post(VERSIONS, json=body).json()
    assert (again["version"], len(again["missing"])) == (1, len(missing) - 2)
    send(client, folder, again["missing"])
    completed = client.post(f"{VERSIONS}/1/complete")
    assert (completed.status_code, completed.json()["state"]) == (202, "checking")
    assert client.post(f"{VERSIONS}/1/complete").json() == completed.json()
    assert client.get("/api/v1/experts/law").json()["versions"][0]["ref"] == "law@1"


def test_completing_too_early_names_the_missing_blobs(
    client: TestClient, body: dict[str, Any]
) -> None:
    missing = client.post(VERSIONS, json=body).json()["missing"]
    answer = client.post(f"{VERSIONS}/1/complete")
    assert answer.status_code == 409
    named = {entry["detail"] for entry in answer.json()["errors"]}
    assert named <= {blob["digest"] for blob in missing}
    assert named


def test_a_wrong_shape_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    change_header(body, FFN, shape=[32, 64])
    problem = refusal(client, body)
    assert problem["code"] == "invalid_checkpoint"
    (error,) = problem["errors"]
    assert FFN in error["detail"]
    assert "[64, 32]" in error["detail"]


def test_a_wrong_dtype_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    change_header(body, FFN, dtype="F16")
    problem = refusal(client, body)
    assert problem["code"] == "incompatible"
    assert "BF16" in problem["errors"][0]["detail"]


def test_a_missing_tensor_is_named(client: TestClient, body: dict[str, Any]) -> None:
    header = json.loads(body["shards"][0]["header"])
    last = max(header, key=lambda name: header[name].get("data_offsets", [0, 0])[1])
    begin, end = header.pop(last)["data_offsets"]
    body["shards"][0]["header"] = text = json.dumps(header)
    body["shards"][0]["size"] = 8 + len(text) + begin
    del body["digests"][last]
    assert end > begin
    assert last in refusal(client, body)["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("offsets", "word"), [([0, 10], "span"), ([10, 0], "inverted"), ([0, 4096], "overlap")]
)
def test_wrong_offsets_are_refused(
    client: TestClient, body: dict[str, Any], offsets: list[int], word: str
) -> None:
    change_header(body, FFN, data_offsets=offsets)
    problem = refusal(client, body)
    assert problem["errors"][0]["pointer"].startswith("/shards/0")
    assert any(word in error["detail"] for error in problem["errors"])


def test_a_truncated_file_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    body["shards"][0]["size"] -= 100
    assert refusal(client, body)["code"] == "invalid_checkpoint"


@pytest.mark.parametrize("header", ["", "{", "[]", '{"a": NaN}', "{" * 5000])
def test_a_broken_header_is_refused(client: TestClient, body: dict[str, Any], header: str) -> None:
    body["shards"][0]["header"] = header
    assert refusal(client, body)["errors"][0]["pointer"] == "/shards/0/header"


def test_a_huge_header_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    body["shards"][0]["header"] = " " * (33 << 20)
    assert refusal(client, body, status=413)["code"] == "too_large"


@pytest.mark.parametrize("file", ["pytorch_model.bin", "weights.pkl", "../x.json", "a/b.json"])
def test_files_with_unsafe_names_are_refused(
    client: TestClient, body: dict[str, Any], file: str
) -> None:
    body["files"][file] = "0" * 64
    problem = refusal(client, body)
    assert problem["errors"][0]["pointer"] == "/files/" + file.replace("/", "~1")


def test_a_tokenizer_of_other_bytes_is_asked_for(client: TestClient, body: dict[str, Any]) -> None:
    body["files"]["tokenizer.json"] = "0" * 64
    missing = client.post(VERSIONS, json=body).json()["missing"]
    assert "0" * 64 in {blob["digest"] for blob in missing}


@pytest.mark.parametrize(
    ("notes", "at"),
    [
        ({"casts": {"none": {"dtype": "F16", "is_lossless": True}}}, "/notes/casts/none"),
        ({"casts": {FFN: {"dtype": "I8", "is_lossless": True}}}, f"/notes/casts/{FFN}/dtype"),
        ({"files": {"../x.json": "0" * 64}}, "/notes/files/..~1x.json"),
        (
            {"rows": {FFN: {"dtype": "BF16", "shape": [2, 32], "digest": "0" * 64}}},
            f"/notes/rows/{FFN}",
        ),
        (
            {"rows": {EMBEDDINGS: {"dtype": "BF16", "shape": [2, 31], "digest": "0" * 64}}},
            f"/notes/rows/{EMBEDDINGS}",
        ),
    ],
)
def test_notes_that_do_not_belong_to_the_checkpoint_are_refused(
    client: TestClient, body: dict[str, Any], notes: dict[str, Any], at: str
) -> None:
    problem = refusal(client, body | {"notes": notes})
    assert [error["pointer"] for error in problem["errors"]] == [at]


def test_an_unknown_family_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert refusal(client, body | {"family": "none"}, status=404)["code"] == "not_found"


def test_unknown_and_missing_fields_are_named(client: TestClient, body: dict[str, Any]) -> None:
    del body["license"]
    problem = refusal(client, body | {"color": "red"})
    assert {error["pointer"] for error in problem["errors"]} == {"/license", "/color"}


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    answer = client.post(VERSIONS, content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "")


def test_a_version_that_failed_says_why_and_is_retried(
    client: TestClient, body: dict[str, Any], folder: Path
) -> None:
    send(client, folder, client.post(VERSIONS, json=body).json()["missing"])
    assert client.post(f"{VERSIONS}/1/retry").status_code == 409
    client.post(f"{VERSIONS}/1/complete")
    with db.transaction() as session:
        version = experts.find_version(session, expert="law", number=1)
        experts.mark_failed(session, version.id, error="the machine is short of memory")
    failed = client.get(f"{VERSIONS}/1").json()
    assert (failed["state"], failed["error"]) == ("failed", "the machine is short of memory")
    assert client.get("/api/v1/experts/law/versions/1/files").status_code == 409
    retried = client.post(f"{VERSIONS}/1/retry")
    assert retried.status_code == 202
    assert (retried.json()["state"], retried.json()["error"]) == ("checking", None)
    assert client.post(f"{VERSIONS}/2/retry").status_code == 404


def test_each_version_has_its_own_license(client: TestClient, body: dict[str, Any]) -> None:
    client.post(VERSIONS, json=body | {"license": "MIT"})
    second = body | {"documents": "a" * 64, "license": "CC-BY-NC-4.0", "description": "cases"}
    client.post(VERSIONS, json=second)
    versions = client.get("/api/v1/experts/law").json()["versions"]
    assert [(v["license"], v["description"]) for v in versions] == [
        ("CC-BY-NC-4.0", "cases"),
        ("MIT", ""),
    ]


def test_lists_are_paged_and_searched(client: TestClient, family: str) -> None:
    with db.transaction() as session:
        owner = families.find(session, family)
        for name in ("law", "lore", "code"):
            factories.make_expert(session, owner, name=name)
        experts.find(session, "code").description = "Rust and 100% LAWless C"
    page = client.get("/api/v1/experts", params={"limit": 2}).json()
    assert ([e["name"] for e in page["data"]], page["has_more"]) == (["code", "law"], True)
    rest = client.get("/api/v1/experts", params={"after": page["data"][-1]["id"]}).json()
    assert ([e["name"] for e in rest["data"]], rest["has_more"]) == (["lore"], False)
    found = client.get("/api/v1/experts", params={"q": "law"}).json()["data"]
    assert [e["name"] for e in found] == ["code", "law"]
    assert client.get("/api/v1/experts", params={"q": "0%"}).json()["data"][0]["name"] == "code"
    assert client.get("/api/v1/experts", params={"limit": 0}).json()["errors"] == [
        {"pointer": "/query/limit", "detail": "Input should be greater than or equal to 1"}
    ]


def test_a_text_finds_its_domain(client: TestClient, family: str, store: BlobStore) -> None:
    domains = {"law": "The court dismissed the appeal.", "code": "fn main() { println!(); }"}
    with db.transaction() as session:
        owner = families.find(session, family)
        for number, (name, text) in enumerate(domains.items(), start=1):
            expert = factories.make_expert(session, owner, name=name)
            version = factories.make_version(session, expert, store, tiny_expert=number)
            factories.embed(
                session,
                version,
                query_encoder().embed(text),
                embedder_digest=embedder_digest(),
            )
    asked = {"text": "The judge sentenced the defendant.", "family": family}
    found = client.post("/api/v1/experts:suggest", json=asked).json()["data"]
    assert [entry["ref"] for entry in found] == ["law@1", "code@1"]
    assert found[0]["similarity"] > found[1]["similarity"]
    assert client.post("/api/v1/experts:suggest", json=asked | {"family": "x"}).status_code == 404


def test_an_owner_is_told_of_a_chat_template_that_mixes_lose(
    client: TestClient, store: BlobStore, family: str
) -> None:
    with db.transaction() as session:
        row = families.find(session, family)
        seed = manifests.load(store, row.seed_digest)
        expert = factories.make_expert(session, row, name="law")
        factories.make_version(session, expert, store)
    [kept] = client.get("/api/v1/experts/law").json()["versions"]
    with db.transaction() as session:
        bare = {"tokenizer.json": seed.files["tokenizer.json"]}
        digest = manifests.store(store, replace(seed, files=bare))
        families.find(session, family).seed_digest = digest
    lost = client.get(f"{VERSIONS}/1").json()

    assert kept["warnings"] == []
    assert len(lost["warnings"]) == 1
    assert lost["warnings"][0].startswith("law@1 has a chat template and its seed has none")


def test_documents_are_forgotten_and_not_asked_for_again(
    client: TestClient, body: dict[str, Any], folder: Path, store: BlobStore
) -> None:
    private = body | {"private_documents": True}
    begun = client.post(VERSIONS, json=private).json()
    assert (begun["private_documents"], begun["documents_forgotten_at"]) == (True, None)
    send(client, folder, begun["missing"])
    client.post(f"{VERSIONS}/1/complete")
    early = client.delete(f"{VERSIONS}/1/documents")
    assert early.status_code == 409
    assert "its documents are needed until its domain is embedded" in early.json()["detail"]
    with db.transaction() as session:
        experts.mark_checked(session, 1)
        experts.mark_embedded(session, 1)

    forgotten = client.delete(f"{VERSIONS}/1/documents")
    assert forgotten.status_code == 200
    at = forgotten.json()["documents_forgotten_at"]
    assert at is not None
    assert client.delete(f"{VERSIONS}/1/documents").json()["documents_forgotten_at"] == at
    store.local_path(body["documents"]).unlink()
    again = client.post(VERSIONS, json=body).json()
    assert (again["version"], again["missing"]) == (1, [])
    assert again["private_documents"]
    with db.transaction() as session:
        [event] = session.query(JobEvent).filter(JobEvent.message.contains("forgotten")).all()
        assert event.data["documents"] == body["documents"]


def test_a_ready_version_registered_with_the_wish_is_forgotten_at_once(
    client: TestClient, body: dict[str, Any], folder: Path
) -> None:
    send(client, folder, client.post(VERSIONS, json=body).json()["missing"])
    client.post(f"{VERSIONS}/1/complete")
    with db.transaction() as session:
        experts.mark_checked(session, 1)
        experts.mark_embedded(session, 1)
    again = client.post(VERSIONS, json=body | {"forget_documents": True}).json()
    assert again["documents_forgotten_at"] is not None
