"""An expert as its pages show it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from assembler.routing.embedder import embedders
from registry.blobs.blobs import BlobStore
from registry.catalog import embeddings, experts
from registry.checkpoints import manifests
from registry.database.tables import Expert, ExpertVersion, VersionState
from registry.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class VersionView:
    number: int
    state: VersionState
    embedded: bool
    num_bytes: int
    num_own_bytes: int
    manifest_digest: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ExpertView:
    """`versions` are newest first."""

    name: str
    family: str
    license: str
    description: str
    created_at: datetime
    versions: tuple[VersionView, ...]

    @property
    def newest(self) -> VersionView | None:
        return self.versions[0] if self.versions else None


def view(session: Session, blobs: BlobStore, expert: Expert) -> ExpertView:
    versions = experts.find_versions(session, expert.name)
    return ExpertView(
        name=expert.name,
        family=expert.family.name,
        license=expert.license,
        description=expert.description,
        created_at=expert.created_at,
        versions=tuple(_version(session, blobs, version) for version in versions),
    )


def is_embedded(session: Session, version: ExpertVersion) -> bool:
    try:
        current = embedders(version.expert.family.seed_digest)
        embeddings.find(session, version, embedders=current)
    except NotFound:
        return False
    return True


def _version(session: Session, blobs: BlobStore, version: ExpertVersion) -> VersionView:
    total, own = _sizes(blobs, version.manifest_digest, version.expert.family.seed_digest)
    return VersionView(
        number=version.number,
        state=version.state,
        embedded=is_embedded(session, version),
        num_bytes=total,
        num_own_bytes=own,
        manifest_digest=version.manifest_digest,
        created_at=version.created_at,
    )


def _sizes(blobs: BlobStore, manifest_digest: str, seed_digest: str) -> tuple[int, int]:
    """Bytes of a checkpoint's tensors, and of those that the seed does not have."""
    manifest, seed = (manifests.load(blobs, digest) for digest in (manifest_digest, seed_digest))
    shared = seed.digests()
    own = [t.num_bytes for t in manifest.tensors.values() if t.digest not in shared]
    return manifest.num_bytes, sum(own)
