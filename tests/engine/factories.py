"""Rows and blobs for tests of deployments."""

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts
from registry.database.tables import Artifact
from tests import tiny


def make_artifact(session: Session, blobs: BlobStore, *, expert: int = 0) -> Artifact:
    """Register a tiny dense checkpoint as an artifact; the engine treats a mix in the same way."""
    return artifacts.register(
        session,
        manifest_digest=tiny.store_manifest(blobs, expert=expert).digest,
        recipe={},
        recipe_digest=f"{expert:064}",
        gate_report_digest="0" * 64,
    )
