"""The last step of a mix: register an artifact with its provenance and sign it."""

from sqlalchemy.orm import Session

from assembler.assembly.inputs import gather
from assembler.assembly.provenance import Environment, Provenance
from assembler.recipes.recipe import Recipe
from assembler.tables import MixVersion
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import artifacts
from registry.checkpoints.attestations import Attestation, Statement, signing_key
from registry.database.tables import Artifact
from registry.settings import settings


def publish(session: Session, version: MixVersion, *, blobs: BlobStore) -> Artifact:
    """Publish a version that has passed its gate, or whose gate was overridden.

    Blobs are written before the row that names them. Publishing again returns the first row. Raises
    OutOfSpace.
    """
    manifest_digest = version.candidate_digest
    assert manifest_digest is not None
    assert version.gate_report_digest is not None
    provenance_digest = _provenance(session, version, blobs)
    statement = Statement(
        manifest=manifest_digest,
        recipe=version.recipe_digest,
        gate_report=version.gate_report_digest,
        lock=provenance_digest,
        override=version.override_digest,
    )
    attestation = Attestation.of(statement, signing_key(settings().signing_key_path))
    return artifacts.register(
        session,
        manifest_digest=manifest_digest,
        recipe=version.recipe,
        recipe_digest=version.recipe_digest,
        gate_report_digest=version.gate_report_digest,
        provenance_digest=provenance_digest,
        attestation_digest=put_bytes(blobs, attestation.to_json()),
    )


def _provenance(session: Session, version: MixVersion, blobs: BlobStore) -> str:
    assert version.assembled_digest is not None
    provenance = Provenance.of(
        gather(session, Recipe.model_validate(version.recipe)),
        environment=Environment.model_validate(version.environment),
        assembled=version.assembled_digest,
        finetuned=version.finetuned_digest,
        compressed=version.compressed_digest,
        blobs=blobs,
    )
    return provenance.store(blobs)
