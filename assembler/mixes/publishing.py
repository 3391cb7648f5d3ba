"""The last step of a mix: sign a statement about it, and register an artifact with its provenance.

Blobs are written first, then the row that names them, so that no transaction is open while they
are written.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from assembler.assembly.inputs import MixInputs, gather
from assembler.assembly.provenance import Environment, Provenance
from assembler.recipes.recipe import Recipe
from assembler.tables import MixVersion
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import artifacts
from registry.checkpoints.attestations import Attestation, Statement, signing_key
from registry.database import db
from registry.database.tables import Artifact
from registry.settings import settings


@dataclass(frozen=True)
class Publication:
    """What is stored about a version that can be published: its statement, and the signed one."""

    statement: Statement
    attestation_digest: str


def prepare(
    session: Session, version: MixVersion, *, blobs: BlobStore, override_digest: str | None = None
) -> Publication:
    """Store provenance and attestation of a version that has passed its gate, or is overridden.

    It ends the transaction. Raises OutOfSpace.
    """
    inputs = gather(session, Recipe.model_validate(version.recipe))
    db.release(session)
    manifest_digest = version.candidate_digest
    assert manifest_digest is not None
    assert version.gate_report_digest is not None
    statement = Statement(
        manifest=manifest_digest,
        recipe=version.recipe_digest,
        gate_report=version.gate_report_digest,
        lock=_provenance(version, inputs, blobs),
        override=override_digest,
    )
    attestation = Attestation.of(statement, signing_key(settings().signing_key_path))
    return Publication(statement, put_bytes(blobs, attestation.to_json()))


def register(session: Session, version: MixVersion, publication: Publication) -> Artifact:
    """Publish a version. Publishing again returns the first row."""
    statement = publication.statement
    return artifacts.register(
        session,
        manifest_digest=statement.manifest,
        recipe=version.recipe,
        recipe_digest=statement.recipe,
        gate_report_digest=statement.gate_report,
        provenance_digest=statement.lock,
        attestation_digest=publication.attestation_digest,
    )


def _provenance(version: MixVersion, inputs: MixInputs, blobs: BlobStore) -> str:
    assert version.assembled_digest is not None
    provenance = Provenance.of(
        inputs,
        environment=Environment.model_validate(version.environment),
        assembled=version.assembled_digest,
        finetuned=version.finetuned_digest,
        compressed=version.compressed_digest,
        blobs=blobs,
    )
    return provenance.store(blobs)
