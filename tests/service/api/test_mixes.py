"""Requesting and following mixes, and how wrong requests are refused.

Covers: mix_events, mix_records, mix_requester, schemas, signing_key, service.json_schemas,
service.schemas.common, service.schemas.mixes, service.web.deps, service.web.mix_requests.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from assembler.mixes import job_events, mix_state, mixes
from assembler.tables import MixState
from engine.compression.int8_curve import Curve
from engine.gates.report import Failure
from registry.blobs.blobs import BlobStore, put_bytes
from registry.checkpoints.attestations import Attestation
from registry.checkpoints.file_names import ATTESTATION
from registry.checkpoints.manifests import canonical_json
from registry.database import db
from registry.settings import settings
from tests.assembler import rows
from tests.assembler.published import assemble, keep_report, publish
from tests.service.gate_reports import make_curve, make_report

MIXES = "/api/v1/mixes"
BODY: dict[str, Any] = {
    "name": "both",
    "family": "tiny",
    "experts": ["expert-1", "expert-2@1"],
    "finetune": {"tokens": 0},
}


@pytest.fixture
def experts(client: TestClient, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)


def on_mix(work: Callable[[Session, int], None]) -> None:
    with db.transaction() as session:
        work(session, mixes.get(session, "both@1").id)


def finish(session: Session, version_id: int) -> None:
    mix_state.finish(session, version_id, state=MixState.SUCCEEDED)


@pytest.mark.usefixtures("experts")
def test_a_request_is_answered_at_once_with_pinned_versions(client: TestClient) -> None:
    answer = client.post(MIXES, json=BODY)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{MIXES}/both/versions/1"
    mix = client.get(answer.headers["location"]).json()
    assert mix == answer.json()
    assert (mix["ref"], mix["state"]) == ("both@1", "queued")
    assert mix["recipe"]["experts"] == ["expert-1@1", "expert-2@1"]
    assert mix["recipe"]["projection"] == "tiny@1"
    assert (
        client.get(f"{MIXES}/both")
        .json()["detail"]
        .startswith("mix 'both' has no version that is published; its newest, both@1, is queued")
    )


@pytest.mark.usefixtures("experts")
def test_a_repeated_request_gets_the_first_answer(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post(MIXES, json=BODY, headers=headers)
    with db.transaction() as session:
        mixes.cancel(session, "both@1")
    assert client.post(MIXES, json=BODY, headers=headers).json() == first.json()
    other = client.post(MIXES, json=BODY | {"name": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "invalid_input")
    # A new key is a new request: the cancelled version does not count.
    again = client.post(MIXES, json=BODY, headers={"Idempotency-Key": "k2"})
    assert again.json()["version"] == 2


@pytest.mark.usefixtures("experts")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"experts": ["expert-1"]}, "/experts"),
        ({"experts": []}, "/experts"),
        ({"experts": ["expert-1", "nobody"]}, "/experts/1"),
        ({"experts": ["expert-1", "expert-2@7"]}, "/experts/1"),
        ({"experts": ["expert-1", "expert-1@1"]}, "/experts/1"),
        ({"experts": ["expert-1", "../../etc"]}, "/experts/1"),
        ({"family": "none"}, "/family"),
        ({"name": "No Name"}, "/name"),
        ({"experts_per_token": 3}, "/experts_per_token"),
        ({"experts_per_token": 0}, "/experts_per_token"),
        ({"finetune": {"tokens": -1}}, "/finetune/tokens"),
        ({"finetune": {"token": 5}}, "/finetune/token"),
        ({"gates": {"served": {"min_equal_share": 2}}}, "/gates/served/min_equal_share"),
        ({"combine": "product"}, "/combine"),
        ({"color": "red"}, "/color"),
    ],
)
def test_a_wrong_request_names_the_field(
    client: TestClient, change: dict[str, Any], pointer: str
) -> None:
    answer = client.post(MIXES, json=BODY | change)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert client.get(MIXES).json()["data"] == []


def test_a_request_needs_a_key(anonymous: TestClient) -> None:
    assert anonymous.post(MIXES, json=BODY).status_code == 401


@pytest.mark.usefixtures("experts")
def test_a_mix_is_cancelled(client: TestClient) -> None:
    client.post(MIXES, json=BODY)
    for _ in range(2):
        answer = client.post(f"{MIXES}/both/versions/1/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    client.post(MIXES, json=BODY | {"name": "done"})
    with db.transaction() as session:
        finish(session, mixes.get(session, "done@1").id)
    assert client.post(f"{MIXES}/done/versions/1/cancel").status_code == 409


@pytest.mark.usefixtures("experts")
def test_lists_are_paged(client: TestClient) -> None:
    for name in ("a", "b", "c"):
        client.post(MIXES, json=BODY | {"name": name})
    page = client.get(MIXES, params={"limit": 2}).json()
    assert ([mix["name"] for mix in page["data"]], page["has_more"]) == (["c", "b"], True)
    rest = client.get(MIXES, params={"after": page["data"][-1]["id"]}).json()
    assert ([mix["name"] for mix in rest["data"]], rest["has_more"]) == (["a"], False)


@pytest.mark.usefixtures("experts")
def test_a_failed_mix_is_retried_under_its_name(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = client.post(MIXES, json=BODY, headers=headers).json()
    retry = f"{MIXES}/both/versions/1/retry"
    on_mix(lambda session, id: mix_state.finish(session, id, state=MixState.PARKED, error="killed"))
    assert client.get(f"{MIXES}/both/versions/1").json()["state"] == "parked"
    answers = [client.post(retry) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    for answer in answers:
        assert (answer.json()["ref"], answer.json()["error"]) == ("both@1", None)
        assert answer.json()["state"] == "queued"
    assert client.post(MIXES, json=BODY, headers=headers).json() == first
    on_mix(finish)
    refused = client.post(retry)
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert client.post(f"{MIXES}/both/versions/2/retry").status_code == 404


@pytest.mark.parametrize("path", ["x", "x/versions/1", "x/versions/1/events", "..%2f/versions/1"])
def test_an_unknown_mix_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(f"{MIXES}/{path}").status_code in (404, 422)


@pytest.mark.usefixtures("experts")
def test_events_continue_after_the_last_id(client: TestClient) -> None:
    client.post(MIXES, json=BODY)

    def tell(session: Session, version_id: int) -> None:
        mix_state.begin(session, version_id, step="assemble")
        mix_state.complete(session, version_id, step="assemble")

    on_mix(tell)
    on_mix(finish)
    events = f"{MIXES}/both/versions/1/events"
    story = client.get(events)
    assert story.headers["content-type"].startswith("text/event-stream")
    ids = [line[4:] for line in story.text.splitlines() if line.startswith("id: ")]
    assert len(ids) == 3
    assert "event:" not in story.text
    rest = client.get(events, headers={"Last-Event-ID": ids[1]})
    assert rest.text.count("data: ") == 1
    assert '"state":"succeeded"' in rest.text
    # A browser that connects again gets 204, which ends its stream.
    assert client.get(events, headers={"Last-Event-ID": ids[2]}).status_code == 204
    assert client.get(events, headers={"Last-Event-ID": "x"}).status_code == 422


@pytest.mark.usefixtures("experts")
def test_a_request_holds_one_connection(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a pool of one, a request that holds two would wait for itself."""
    db.close()
    monkeypatch.setattr(db, "POOL_SIZE", 1)
    monkeypatch.setattr(db, "MAX_OVERFLOW", 0)
    monkeypatch.setenv("NEXUSMIX_DATABASE_POOL_SECONDS", "0.5")
    settings.cache_clear()
    db.close()
    for _ in range(2):
        assert client.post(MIXES, json=BODY, headers={"Idempotency-Key": "a"}).status_code == 202
    on_mix(finish)
    for path in (MIXES, f"{MIXES}/both/versions/1/events", "/mixes/both@1"):
        assert client.get(path).status_code == 200, path


@pytest.mark.usefixtures("experts")
def test_a_gate_report_is_returned_as_it_was_stored(client: TestClient, store: BlobStore) -> None:
    client.post(MIXES, json=BODY)
    report = f"{MIXES}/both/versions/1/gate-report"
    assert client.get(report).status_code == 404
    with db.transaction() as session:
        mixes.get(session, "both@1").gate_report_digest = put_bytes(store, b'{"passed": true}')
    assert client.get(report).json() == {"passed": True}


@pytest.mark.usefixtures("experts")
def test_the_curve_of_a_compression_is_returned(client: TestClient, store: BlobStore) -> None:
    client.post(MIXES, json=BODY | {"compress": {"max_bytes": 900_000}})
    path = f"{MIXES}/both/versions/1/compression"
    assert client.get(path).status_code == 404
    curve = make_curve()
    with db.transaction() as session:
        digest = put_bytes(store, curve.model_dump_json().encode())
        mixes.get(session, "both@1").curve_digest = digest
    assert Curve.model_validate(client.get(path).json()) == curve


@pytest.mark.usefixtures("experts")
def test_a_published_mix_has_an_attestation(client: TestClient, store: BlobStore) -> None:
    """The attestation covers the files, and the service's public key verifies it."""
    client.post(MIXES, json=BODY)
    version = f"{MIXES}/both/versions/1"
    assert client.get(f"{version}/attestation").status_code == 404
    with db.transaction() as session:
        publish(session, store, mixes.get(session, "both@1"))
    attestation = Attestation.model_validate_json(client.get(f"{version}/attestation").content)
    assert attestation.is_genuine
    assert attestation.public_key == client.get("/api/v1/signing-key").json()["public_key"]
    files = client.get(f"{version}/files").json()
    assert files["manifest_digest"] == attestation.statement.manifest
    sent = client.get(f"{version}/files/{ATTESTATION}").content
    assert Attestation.model_validate_json(sent) == attestation
    listed = {"name": ATTESTATION, "size": len(sent), "digest": hashlib.sha256(sent).hexdigest()}
    assert listed in files["data"]


@pytest.mark.usefixtures("experts")
def test_a_refused_mix_is_published_by_an_override(client: TestClient, store: BlobStore) -> None:
    client.post(MIXES, json=BODY)
    version = f"{MIXES}/both/versions/1"
    failure = Failure(
        domain="expert-1", metric="served.fdt_75", value=3, limit="at least", threshold=24
    )
    with db.transaction() as session:
        row = mixes.get(session, "both@1")
        assemble(session, store, row)
        keep_report(store, row, failures=[failure])
        mix_state.finish(session, row.id, state=MixState.FAILED, error=str(failure))
    waived = {"domain": failure.domain, "metric": failure.metric}
    body = {"scope": [waived], "reason": "a trial"}
    refused = client.post(f"{version}/override", json=body | {"scope": [waived | {"domain": "x"}]})
    assert refused.status_code == 422
    assert [e["pointer"] for e in refused.json()["errors"]] == ["/scope", "/scope/0"]
    assert client.get(f"{version}/override").status_code == 404
    answer = client.post(f"{version}/override", json=body)
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    record = client.get(f"{version}/override").json()
    assert (record["scope"], record["reason"]) == ([waived], "a trial")
    assert record["by"]


@pytest.mark.usefixtures("experts")
def test_a_refused_mix_can_be_downloaded_for_a_limited_time(
    client: TestClient, store: BlobStore
) -> None:
    client.post(MIXES, json=BODY)
    version = f"{MIXES}/both/versions/1"
    failure = Failure(domain="expert-1", metric="served.sdt", value=3, limit="at most", threshold=1)
    with db.transaction() as session:
        row = mixes.get(session, "both@1")
        assemble(session, store, row)
        keep_report(store, row, failures=[failure])
        assert row.gate_report_digest is not None
        mix_state.keep_report(session, row.id, digest=row.gate_report_digest)
        mix_state.finish(session, row.id, state=MixState.FAILED, error=str(failure))
        digest = row.assembled_digest
    kept = client.get(version).json()["kept_until"]
    assert datetime.fromisoformat(kept) > datetime.now(UTC)
    files = client.get(f"{version}/files").json()
    assert (files["manifest_digest"], files["attestation_digest"]) == (digest, None)
    assert client.get(f"{version}/files/config.json").status_code == 200
    with db.transaction() as session:
        mixes.get(session, "both@1").kept_until = datetime.now(UTC)
    assert client.get(f"{version}/files").status_code == 409


@pytest.mark.usefixtures("experts")
def test_a_gate_report_is_returned_as_json_and_as_a_page(
    client: TestClient, store: BlobStore
) -> None:
    client.post(MIXES, json=BODY)
    report = f"{MIXES}/both/versions/1/gate-report"
    assert client.get(f"{report}.html").status_code == 404
    names = ("expert-1", "expert-2")
    made = make_report(assembled=(30, 40), finetuned=None, domains=names)
    with db.transaction() as session:
        row = mixes.get(session, "both@1")
        row.gate_report_digest = put_bytes(store, canonical_json(made.model_dump(mode="json")))
        digest = row.gate_report_digest
    content = client.get(report).content
    assert hashlib.sha256(content).hexdigest() == digest
    schema = client.get("/api/v1/schemas/gate-report").json()
    jsonschema.validate(json.loads(content), schema)
    page = client.get(f"{report}.html")
    assert "Gate of both@1" in page.text
    assert digest in page.text
    # The policy allows its own style, and loads nothing.
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src")
    assert client.get("/api/v1/schemas/color").status_code == 404


@pytest.mark.usefixtures("experts")
def test_a_request_wakes_the_worker(client: TestClient, database: str) -> None:
    from psycopg import connect

    with connect(database.replace("+psycopg", ""), autocommit=True) as listener:
        listener.execute(f"LISTEN {job_events.WAKE_CHANNEL}")
        client.post(MIXES, json=BODY)
        assert [n.channel for n in listener.notifies(timeout=10, stop_after=1)]
