"""Make rows of the registry for tests; the blobs of some do not exist."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from assembler.routing.embedder import states_embedder_digest
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents, embeddings
from registry.catalog.embeddings import Embedders
from registry.checkpoints import manifests
from registry.checkpoints.manifests import json_digest
from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from tests import tiny

EMBEDDER = "tests"
EMBEDDER_DIGEST = json_digest(EMBEDDER)


def make_family(session: Session, blobs: BlobStore, *, name: str = "tiny") -> Family:
    """Add a family whose seed is expert 0 of `tests.tiny`."""
    seed_digest = tiny.store_manifest(blobs).digest
    family = Family(
        name=name, license="Apache-2.0", seed_digest=seed_digest, state=VersionState.READY
    )
    session.add(family)
    session.flush()
    return family


def make_expert(session: Session, family: Family, *, name: str) -> Expert:
    expert = Expert(name=name, family=family, license="CC0-1.0")
    session.add(expert)
    session.flush()
    return expert


def make_version(
    session: Session,
    expert: Expert,
    blobs: BlobStore,
    *,
    number: int = 1,
    tiny_expert: int = 1,
    state: VersionState = VersionState.READY,
) -> ExpertVersion:
    """Add a version with the checkpoint and documents of an expert of `tests.tiny`."""
    manifest = tiny.store_manifest(blobs, expert=tiny_expert)
    sample = documents.serialize(tiny.sample_documents(expert=tiny_expert))
    version = ExpertVersion(
        expert=expert,
        number=number,
        state=state,
        license=expert.license,
        manifest_digest=manifests.store(blobs, manifest),
        documents_digest=put_bytes(blobs, sample),
        ready_at=datetime.now(UTC) if state is VersionState.READY else None,
    )
    session.add(version)
    session.flush()
    return version


def embed(
    session: Session,
    version: ExpertVersion,
    vector: Sequence[float],
    *,
    embedder_digest: str = EMBEDDER_DIGEST,
) -> None:
    embeddings.store(
        session,
        version,
        vector=vector,
        embedder=EMBEDDER,
        num_documents=6,
        states_digest=json_digest("router inputs"),
        num_tokens=100,
        moments_digest=None,
        embedders=Embedders(
            encoder=embedder_digest,
            states=states_embedder_digest(version.expert.family.seed_digest),
        ),
    )
