"""Artifacts are published once, listed newest first, and are what was signed about them."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import artifacts
from registry.checkpoints.attestations import Attestation, Statement, signing_key
from registry.database.tables import Artifact
from registry.errors import InvalidCheckpoint, NotFound


def publish(session: Session, manifest: str) -> Artifact:
    return artifacts.register(
        session,
        manifest_digest=manifest * 64,
        recipe={"experts": ["a@1", "b@2"]},
        recipe_digest="r" * 64,
        gate_report_digest="g" * 64,
    )


def test_publishing_twice_gives_one_artifact(session: Session) -> None:
    first = publish(session, "a")
    assert publish(session, "a").id == first.id
    assert artifacts.get(session, first.id).recipe == {"experts": ["a@1", "b@2"]}


def test_pages(session: Session) -> None:
    ids = [publish(session, name).id for name in "abc"]
    assert [artifact.id for artifact in artifacts.find_page(session, limit=2)] == ids[:0:-1]
    assert [artifact.id for artifact in artifacts.find_page(session, before=ids[1])] == ids[:1]


def test_unknown_artifact(session: Session) -> None:
    with pytest.raises(NotFound, match="no artifact 7"):
        artifacts.get(session, 7)


def signed(session: Session, blobs: LocalBlobs, folder: Path, **changes: str) -> Artifact:
    """Publish a checkpoint with a signed statement, in which `changes` differ from its row."""
    digests = {"manifest": "m" * 64, "recipe": "r" * 64, "gate_report": "g" * 64, "lock": "l" * 64}
    statement = Statement.model_validate(digests | changes)
    attestation = Attestation.of(statement, signing_key(folder / "key.pem"))
    return artifacts.register(
        session,
        manifest_digest=digests["manifest"],
        recipe={},
        recipe_digest=digests["recipe"],
        gate_report_digest=digests["gate_report"],
        provenance_digest=digests["lock"],
        attestation_digest=put_bytes(blobs, attestation.to_json()),
    )


def test_an_artifact_is_what_was_signed(
    session: Session, blobs: LocalBlobs, tmp_path: Path
) -> None:
    artifacts.check_attestation(signed(session, blobs, tmp_path), blobs)
    artifacts.check_attestation(publish(session, "a"), blobs)


@pytest.mark.parametrize("field", ["manifest", "recipe", "gate_report", "lock"])
def test_another_statement_than_the_row_is_refused(
    session: Session, blobs: LocalBlobs, tmp_path: Path, field: str
) -> None:
    other = signed(session, blobs, tmp_path, **{field: "x" * 64})
    with pytest.raises(InvalidCheckpoint, match="is not what was signed"):
        artifacts.check_attestation(other, blobs)


def test_a_signature_of_something_else_is_refused(
    session: Session, blobs: LocalBlobs, tmp_path: Path
) -> None:
    artifact = signed(session, blobs, tmp_path)
    assert artifact.attestation_digest is not None
    data = b"".join(blobs.read(artifact.attestation_digest)).replace(b"m" * 64, b"n" * 64)
    artifact.manifest_digest, artifact.attestation_digest = "n" * 64, put_bytes(blobs, data)
    with pytest.raises(InvalidCheckpoint, match="is not genuine"):
        artifacts.check_attestation(artifact, blobs)
