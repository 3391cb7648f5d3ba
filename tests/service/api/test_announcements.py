"""A digest is no permission: announced bytes must be sent, unless they can be downloaded anyway.

An owner registers an expert with private documents. Another key, which sees their digest, tries to
get them, or to learn that they are there.
"""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import blob_permissions, experts, families
from registry.checkpoints import manifests
from registry.database import db
from registry.database.tables import VersionState
from registry.ingest.checkpoint_folder import CheckpointFolder
from service import keys
from tests import factories, tiny
from tests.service.conftest import ADDRESS
from tests.service.sending import put_blob, send

EXPERTS = "/api/v1/experts"
NOBODY_HAS = "0" * 64


@pytest.fixture
def owner(client: TestClient) -> TestClient:
    return client


@pytest.fixture
def other(app: FastAPI, client: TestClient) -> TestClient:
    """A client with another key."""
    with db.transaction() as session:
        key = keys.create_key(session, name="other")
    return TestClient(app, base_url=ADDRESS, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "expert", expert=1)


@pytest.fixture
def body(client: TestClient, store: BlobStore, folder: Path) -> dict[str, Any]:
    """The announcement of the owner's expert."""
    with db.transaction() as session:
        family = factories.make_family(session, store).name
    checkpoint = CheckpointFolder.read(folder)
    about = {"family": family, "license": "CC0-1.0", "documents": checkpoint.documents}
    return checkpoint.announcement | about


@pytest.fixture
def documents(owner: TestClient, body: dict[str, Any], folder: Path) -> str:
    """The digest of the owner's private documents; the expert is ready."""
    register(owner, "law", body, folder)
    digest: str = body["documents"]
    return digest


def missing_of(client: TestClient, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    begun = client.post(f"{EXPERTS}/{name}/versions", json=body)
    assert begun.status_code == 201, begun.text
    missing: list[dict[str, Any]] = begun.json()["missing"]
    return missing


def complete(client: TestClient, name: str) -> int:
    return client.post(f"{EXPERTS}/{name}/versions/1/complete").status_code


def register(client: TestClient, name: str, body: dict[str, Any], folder: Path) -> None:
    send(client, folder, missing_of(client, name, body))
    assert complete(client, name) == 202
    check(name)


def check(name: str) -> None:
    """Check a version as a worker does."""
    with db.transaction() as session:
        version = experts.find_version(session, expert=name, number=1)
        experts.mark_checked(session, version.id)
        manifest = manifests.load(blob_stores.store(), experts.checkpoint_digest(version))
        blob_permissions.record_downloadable(session, manifest)


def own_documents(client: TestClient) -> str:
    lines = [document_of_size(60), document_of_size(60).replace(b"train", b"held-out")]
    return put_blob(client, b"\n".join(lines).replace(b'"1"', b'"2"', 1))


def document_of_size(num_bytes: int) -> bytes:
    line = b'{"id": "1", "text": "x", "split": "train"}'
    return line.replace(b"x", b"x" * (num_bytes - len(line) + 1))


def digests_in(missing: list[dict[str, Any]]) -> set[str]:
    return {blob["digest"] for blob in missing}


def test_documents_announced_as_a_file_cannot_be_downloaded(
    other: TestClient, body: dict[str, Any], documents: str
) -> None:
    stolen = body | {
        "documents": own_documents(other),
        "files": body["files"] | {"x.txt": documents},
    }
    assert digests_in(missing_of(other, "mine", stolen)) == {documents}
    assert complete(other, "mine") == 409
    assert other.get(f"{EXPERTS}/mine/versions/1/files/x.txt").status_code == 409
    assert other.get(f"{EXPERTS}/mine/versions/1/files").status_code == 409


def test_a_version_that_was_retired_unfinished_cannot_be_downloaded(
    other: TestClient, body: dict[str, Any], documents: str
) -> None:
    missing_of(other, "mine", body | {"files": body["files"] | {"x.txt": documents}})
    with db.transaction() as session:
        experts.retire(session, expert="mine", number=1)
    assert other.get(f"{EXPERTS}/mine/versions/1/files/x.txt").status_code == 409


def test_documents_announced_as_a_file_of_a_seed_must_be_sent(
    other: TestClient, body: dict[str, Any], documents: str
) -> None:
    seed = {name: body[name] for name in ("config", "shards", "digests", "license")}
    seed |= {"name": "mine", "files": body["files"] | {"x.txt": documents}}
    begun = other.post("/api/v1/families", json=seed).json()
    assert documents in digests_in(begun["missing"])
    assert other.post("/api/v1/families/mine/complete").status_code == 409


def test_a_seed_that_replaced_another_cannot_be_retried_unsent(
    other: TestClient, body: dict[str, Any], documents: str
) -> None:
    """A retry checks what was sent completely; it does not ask for a permission again."""
    seed = {name: body[name] for name in ("config", "shards", "digests", "license", "files")}
    seed |= {"name": "mine"}
    other.post("/api/v1/families", json=seed)
    with db.transaction() as session:
        families.find(session, "mine").state = VersionState.FAILED
    other.post("/api/v1/families", json=seed | {"files": body["files"] | {"x.txt": documents}})
    assert other.post("/api/v1/families/mine/retry").status_code == 409
    assert other.post("/api/v1/families/mine/complete").status_code == 409


def test_documents_announced_as_a_tensor_must_be_sent(
    other: TestClient, owner: TestClient, body: dict[str, Any], documents: str
) -> None:
    """Also when their size is that of a tensor: the size of a private blob is not told either."""
    name = "model.layers.0.mlp.up_proj.weight"
    fitting = put_blob(owner, document_of_size(len(tiny.tensors()[name])))
    own = own_documents(other)
    for private in (documents, fitting):
        stolen = body | {"documents": own, "digests": body["digests"] | {name: private}}
        assert digests_in(missing_of(other, "mine", stolen)) == {private}
    assert complete(other, "mine") == 409


def test_documents_of_another_expert_are_no_documents_of_mine(
    other: TestClient, body: dict[str, Any], documents: str, folder: Path
) -> None:
    missing = missing_of(other, "mine", body)
    assert digests_in(missing) == {documents}
    assert complete(other, "mine") == 409
    send(other, folder, missing)
    assert complete(other, "mine") == 202, "who has the same bytes may use them"


def test_a_projection_needs_documents_that_were_sent(
    other: TestClient, body: dict[str, Any], documents: str
) -> None:
    """Otherwise the problems of a refusal would quote them."""
    url = f"/api/v1/families/{body['family']}/projections"
    answers = [other.post(url, json={"documents": d}) for d in (documents, NOBODY_HAS)]
    assert [answer.status_code for answer in answers] == [409, 409]
    first, second = (answer.json() for answer in answers)
    assert first["detail"] == second["detail"]


@pytest.mark.parametrize("as_what", ["documents", "file"])
def test_the_answer_to_an_announcement_does_not_tell_whether_a_blob_is_there(
    other: TestClient, body: dict[str, Any], documents: str, as_what: str
) -> None:
    answers = []
    for name, digest in (("one", documents), ("two", NOBODY_HAS)):
        change: dict[str, Any] = {"documents": digest}
        if as_what == "file":
            change = {"documents": NOBODY_HAS, "files": body["files"] | {"x.txt": digest}}
        [*_, found] = [b for b in missing_of(other, name, body | change) if b["digest"] == digest]
        answers.append({k: str(v).replace(digest, "DIGEST") for k, v in found.items()})
    assert answers[0] == answers[1]


def test_a_blob_of_somebody_else_seems_not_to_be_there(
    owner: TestClient, other: TestClient, documents: str
) -> None:
    url = f"/api/v1/blobs/{documents}"
    assert owner.head(url).status_code == 200
    assert other.head(url).status_code == 404
    refused = other.put(url, content=b"a guess")
    assert refused.status_code == 422
    assert refused.json()["detail"] == other.put(
        f"/api/v1/blobs/{NOBODY_HAS}", content=b"a guess"
    ).json()["detail"].replace(NOBODY_HAS, documents)
    assert other.head(url).status_code == 404


def test_who_sends_a_blob_that_is_there_may_use_it(
    other: TestClient, documents: str, store: BlobStore
) -> None:
    put_blob(other, get_bytes(store, documents))
    assert other.head(f"/api/v1/blobs/{documents}").status_code == 200


def test_tensors_that_can_be_downloaded_need_not_be_sent_again(
    other: TestClient, body: dict[str, Any], documents: str, folder: Path
) -> None:
    tensors = set(body["digests"].values())
    assert not digests_in(missing_of(other, "copy", body)) & tensors
    assert other.head(f"/api/v1/blobs/{next(iter(tensors))}").status_code == 200


def test_tensors_of_an_unfinished_upload_are_private(
    owner: TestClient, other: TestClient, body: dict[str, Any], folder: Path
) -> None:
    missing = missing_of(owner, "law", body)
    send(owner, folder, missing)
    assert digests_in(missing_of(other, "copy", body)) == digests_in(missing)
    assert complete(other, "law") == 409, "another key must send the bytes too"
