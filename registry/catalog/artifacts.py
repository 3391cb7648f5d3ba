"""Artifacts: checkpoints that passed their gate and may be deployed."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.attestations import Attestation
from registry.database.tables import Artifact
from registry.errors import InvalidCheckpoint, NotFound


def register(
    session: Session,
    *,
    manifest_digest: str,
    recipe: dict[str, Any],
    recipe_digest: str,
    gate_report_digest: str,
    provenance_digest: str | None = None,
    attestation_digest: str | None = None,
) -> Artifact:
    """Publish a checkpoint whose gate passed, and return its row.

    Publishing the same checkpoint and recipe again returns the first row. All blobs must be in the
    store already.
    """
    key = {"manifest_digest": manifest_digest, "recipe_digest": recipe_digest}
    session.execute(
        insert(Artifact)
        .values(
            **key,
            recipe=recipe,
            gate_report_digest=gate_report_digest,
            provenance_digest=provenance_digest,
            attestation_digest=attestation_digest,
        )
        .on_conflict_do_nothing(index_elements=list(key))
    )
    return session.scalars(select(Artifact).filter_by(**key)).one()


def get(session: Session, artifact_id: int) -> Artifact:
    """Return an artifact by its id. Raises NotFound."""
    artifact = session.get(Artifact, artifact_id)
    if artifact is None:
        raise NotFound(f"no artifact {artifact_id}")
    return artifact


def check_attestation(artifact: Artifact, blobs: BlobStore) -> None:
    """Raise InvalidCheckpoint unless a genuine signature states what the row of an artifact says.

    An artifact from before there were signatures has nothing to check.
    """
    if artifact.attestation_digest is None:
        return
    signed = Attestation.model_validate_json(get_bytes(blobs, artifact.attestation_digest))
    statement = signed.statement
    stated = (statement.manifest, statement.recipe, statement.gate_report, statement.lock)
    if not signed.is_genuine:
        raise InvalidCheckpoint(f"the signature of artifact {artifact.id} is not genuine")
    if stated != (
        artifact.manifest_digest,
        artifact.recipe_digest,
        artifact.gate_report_digest,
        artifact.provenance_digest,
    ):
        raise InvalidCheckpoint(f"artifact {artifact.id} is not what was signed")


def find_page(
    session: Session, *, before: int | None = None, limit: int = 50
) -> Sequence[Artifact]:
    """Return at most `limit` artifacts, newest first, all older than the artifact `before`."""
    query = select(Artifact).order_by(Artifact.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Artifact.id < before)
    return session.scalars(query).all()
