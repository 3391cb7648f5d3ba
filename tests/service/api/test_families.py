"""Seeds and projections over HTTP.

Covers: service.schemas.families.
"""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.catalog import experts, families, projections
from registry.catalog.documents import Document, serialize
from registry.database import db
from registry.database.tables import VersionState
from registry.ingest.checkpoint_folder import CheckpointFolder
from tests import factories, tiny
from tests.service.sending import put_blob

FAMILIES = "/api/v1/families"


@pytest.fixture
def documents(client: TestClient) -> str:
    return put_documents(client, domains=["law", "code"])


@pytest.fixture
def family(client: TestClient, store: BlobStore) -> str:
    with db.transaction() as session:
        return factories.make_family(session, store).name


def put_documents(client: TestClient, *, domains: list[str | None]) -> str:
    made = [Document(str(i), "a text", "train", domain) for i, domain in enumerate(domains)]
    return put_blob(client, serialize(made))


def test_a_seed_is_registered(client: TestClient, tmp_path: Path) -> None:
    checkpoint = CheckpointFolder.read(tiny.write_checkpoint(tmp_path))
    body = checkpoint.announcement | {"name": "smol", "license": "Apache-2.0"}
    begun = client.post(FAMILIES, json=body)
    assert (begun.status_code, begun.json()["state"]) == (201, "uploading")
    for blob in begun.json()["missing"]:
        source = checkpoint.sources[blob["digest"]]
        assert blob["size"] in (None, source.num_bytes)
        client.put(blob["url"], content=source.chunks())
    completed = client.post(f"{FAMILIES}/smol/complete")
    assert (completed.status_code, completed.json()["state"]) == (202, "checking")
    assert client.get(FAMILIES).json()["data"] == [client.get(f"{FAMILIES}/smol").json()]


def test_a_license_that_is_no_expression_is_refused(client: TestClient, tmp_path: Path) -> None:
    checkpoint = CheckpointFolder.read(tiny.write_checkpoint(tmp_path / "seed"))
    body = checkpoint.announcement | {"name": "smol", "license": "not a license"}
    refused = client.post("/api/v1/families", json=body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/license"
    experts = "/api/v1/experts/law/versions"
    body = body | {"family": "smol", "documents": "0" * 64}
    del body["name"]
    assert "which SPDX does not know" in client.post(experts, json=body).json()["detail"]


def test_a_seed_that_was_refused_says_why_and_is_retried(client: TestClient, family: str) -> None:
    url = f"{FAMILIES}/{family}"
    assert client.post(f"{url}/retry").json()["state"] == "ready"
    with db.transaction() as session:
        row = families.find(session, family)
        row.state = VersionState.CHECKING
        families.mark_failed(session, row.id, error="the disk is full")
    failed = client.get(url).json()
    assert (failed["state"], failed["error"]) == ("failed", "the disk is full")
    retried = client.post(f"{url}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "checking")


def test_a_family_is_deleted_unless_an_expert_uses_it(
    client: TestClient, family: str, store: BlobStore
) -> None:
    with db.transaction() as session:
        expert = factories.make_expert(session, families.find(session, family), name="law")
        version = factories.make_version(session, expert, store).id
    refused = client.delete(f"{FAMILIES}/{family}")
    assert refused.status_code == 409
    assert "is used by law" in refused.json()["detail"]
    with db.transaction() as session:
        unused = experts.get_version(session, version)
        unused.state, unused.ready_at = VersionState.FAILED, None
    assert client.delete(f"{FAMILIES}/{family}").json()["name"] == family
    assert client.get(f"{FAMILIES}/{family}").status_code == 404
    assert client.delete(f"{FAMILIES}/{family}").status_code == 404


def test_a_projection_that_failed_is_retried(
    client: TestClient, family: str, documents: str
) -> None:
    url = f"{FAMILIES}/{family}/projections"
    client.post(url, json={"documents": documents})
    with db.transaction() as session:
        row = projections.find(session, family=family, number=1)
        projections.mark_failed(session, row, error="the disk is full")
    assert client.get(f"{url}/1").json()["error"] == "the disk is full"
    retried = client.post(f"{url}/1/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "queued")
    assert client.post(f"{url}/2/retry").status_code == 404


def test_the_same_projection_is_trained_once(
    client: TestClient, family: str, documents: str
) -> None:
    url = f"{FAMILIES}/{family}/projections"
    first = client.post(url, json={"documents": documents, "training": {"logit_spread": 5}})
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    assert client.get(first.headers["location"]).json() == first.json()
    again = client.post(url, json={"documents": documents, "training": {"logit_spread": 5}})
    assert again.json() == first.json()
    other = client.post(url, json={"documents": documents, "training": {"logit_spread": 6}})
    assert other.json()["number"] == 2
    assert [row["number"] for row in client.get(url).json()["data"]] == [2, 1]


def test_a_projection_reports_its_state(client: TestClient, family: str, documents: str) -> None:
    url = f"{FAMILIES}/{family}/projections"
    client.post(url, json={"documents": documents})
    with db.transaction() as session:
        row = projections.find(session, family=family, number=1)
        projections.mark_ready(session, row, manifest_digest="e" * 64, metrics={"loss": 0.5})
    body = client.get(f"{url}/1").json()
    assert (body["state"], body["metrics"]) == ("ready", {"loss": 0.5})


@pytest.mark.parametrize("domains", [["law", "law"], ["law", "code", None]])
def test_unusable_documents_are_refused(
    client: TestClient, family: str, domains: list[str | None]
) -> None:
    body = {"documents": put_documents(client, domains=domains)}
    answer = client.post(f"{FAMILIES}/{family}/projections", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/documents")


def test_documents_that_were_not_sent_are_refused(client: TestClient, family: str) -> None:
    url = f"{FAMILIES}/{family}/projections"
    assert client.post(url, json={"documents": "d" * 64}).status_code == 409
    answer = client.post(url, json={"documents": "d"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/documents")


def test_a_wrong_training_is_refused(client: TestClient, family: str, documents: str) -> None:
    body = {"documents": documents, "training": {"shrinkage": 0, "depth": 3}}
    answer = client.post(f"{FAMILIES}/{family}/projections", json=body)
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert (answer.status_code, pointers) == (422, ["/training/shrinkage", "/training/depth"])


def test_an_unknown_family_is_not_found(client: TestClient, documents: str) -> None:
    assert client.get(f"{FAMILIES}/none").status_code == 404
    assert client.get(f"{FAMILIES}/none/projections").status_code == 404
    assert client.post(f"{FAMILIES}/none/complete").status_code == 404
    answer = client.post(f"{FAMILIES}/none/projections", json={"documents": documents})
    assert answer.status_code == 404


def test_a_family_has_its_own_policy(client: TestClient, family: str) -> None:
    url = f"{FAMILIES}/{family}/policy"
    default = client.get(url).json()
    assert (default["number"], default["policy"]["served"]["min_fdt_75"]) == (None, 24)
    made = client.put(url, json={"served": {"min_fdt_75": 8}})
    assert (made.status_code, made.json()["number"]) == (200, 1)
    assert client.get(url).json() == made.json()
    assert made.json()["policy"]["served"] == default["policy"]["served"] | {"min_fdt_75": 8}
    wrong = client.put(url, json={"served": {"min_fdt_75": -1}, "color": "red"})
    assert wrong.status_code == 422
    pointers = {error["pointer"] for error in wrong.json()["errors"]}
    assert pointers == {"/served/min_fdt_75", "/color"}
    assert [
        own["number"] for own in client.get(f"{FAMILIES}/{family}/policies").json()["data"]
    ] == [1]
    assert client.get(f"{FAMILIES}/nobody/policy").status_code == 404
