"""Finished mixes as their jobs would have left them."""

from sqlalchemy.orm import Session

from assembler import making, progress
from assembler.materials import gather
from assembler.recipe import Recipe
from assembler.tables import MixState, MixVersion
from registry import artifacts, manifests
from registry.blobs import BlobStore


def publish(session: Session, blobs: BlobStore, version: MixVersion) -> MixVersion:
    """Assembled, and passed."""
    mix = making.assemble(gather(session, Recipe.model_validate(version.recipe)), blobs)
    version.assembled_digest = manifests.store(blobs, mix)
    artifact = artifacts.register(
        session,
        manifest_digest=version.assembled_digest,
        recipe=version.recipe,
        recipe_digest=version.recipe_digest,
        gate_report_digest="0" * 64,
    )
    version.artifact_id = artifact.id
    progress.finish(session, version.id, state=MixState.SUCCEEDED)
    return version
