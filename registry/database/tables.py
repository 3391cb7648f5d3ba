"""Tables of families, experts, versions, embeddings, projections, artifacts and permissions."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import ForeignKey, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.database.db import Base


class VersionState(StrEnum):
    """State of a family's seed or of an expert version, in the order of a registration.

    A worker imports what is no checkpoint yet, checks what was sent, and embeds the domain of an
    expert. A seed is neither imported nor embedded.
    """

    UPLOADING = "uploading"
    IMPORTING = "importing"
    CHECKING = "checking"
    EMBEDDING = "embedding"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


# A worker has work to do.
PENDING_STATES = (VersionState.IMPORTING, VersionState.CHECKING, VersionState.EMBEDDING)
# Nothing of it was checked yet, or not all of it is good.
UNCHECKED_STATES = (
    VersionState.UPLOADING,
    VersionState.IMPORTING,
    VersionState.CHECKING,
    VersionState.FAILED,
)


class ProjectionState(StrEnum):
    """State of a projection."""

    QUEUED = "queued"
    TRAINING = "training"
    READY = "ready"
    FAILED = "failed"


class Family(Base):
    """A seed model and the experts that branch from it. `seed_digest` names the seed's manifest."""

    __tablename__ = "families"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    license: Mapped[str]
    state: Mapped[VersionState] = mapped_column(default=VersionState.UPLOADING)
    # Why it failed, or why a worker has to try again.
    error: Mapped[str | None]
    # Each retry is a job of its own.
    num_retries: Mapped[int] = mapped_column(default=0, server_default="0")
    seed_digest: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @property
    def num_checks(self) -> int:
        """How often a worker was asked to check a seed of this name, the first time included."""
        return self.num_retries


class Expert(Base):
    """A model for one domain; its checkpoints are its versions.

    License and description are those of its newest version that was ready.
    """

    __tablename__ = "experts"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("families.id"))
    description: Mapped[str] = mapped_column(default="")
    license: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    family: Mapped[Family] = relationship(lazy="raise")


class ExpertVersion(Base):
    """An immutable checkpoint of an expert, with sample documents of its domain."""

    __tablename__ = "expert_versions"
    __table_args__ = (UniqueConstraint("expert_id", "number"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    expert_id: Mapped[int] = mapped_column(ForeignKey("experts.id"))
    number: Mapped[int]
    license: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    state: Mapped[VersionState] = mapped_column(default=VersionState.UPLOADING)
    # Why it failed, or why a worker has to try again.
    error: Mapped[str | None]
    num_retries: Mapped[int] = mapped_column(default=0, server_default="0")
    # What it is imported from, see `registry.imports.sources`, and the same as a sentence.
    source: Mapped[dict[str, Any] | None]
    imported_from: Mapped[str | None]
    # How far a worker is with the import.
    progress: Mapped[str | None]
    # None until the import has ended.
    manifest_digest: Mapped[str | None]
    documents_digest: Mapped[str]
    # No report quotes them, and no projection learns from them.
    private_documents: Mapped[bool] = mapped_column(default=False, server_default="false")
    # Whether they are forgotten as soon as the domain is embedded, and when they were forgotten.
    forget_documents: Mapped[bool] = mapped_column(default=False, server_default="false")
    documents_forgotten_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]

    expert: Mapped[Expert] = relationship(lazy="raise")

    @property
    def kept_documents(self) -> str | None:
        """The digest of its documents; None once they are forgotten."""
        return None if self.documents_forgotten_at else self.documents_digest


class DomainEmbedding(Base):
    """Two embeddings of a version's documents: a vector of a text encoder, and router inputs.

    Experts are searched by the vector, the mean over the documents. Routers are built from the
    router inputs of the version's own network. Neither is compared with those of another embedder.
    """

    __tablename__ = "domain_embeddings"
    __table_args__ = (UniqueConstraint("expert_version_id", "embedder_digest"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    expert_version_id: Mapped[int] = mapped_column(ForeignKey("expert_versions.id"))
    embedder: Mapped[str]
    embedder_digest: Mapped[str]
    num_documents: Mapped[int]
    vector: Mapped[Any] = mapped_column(Vector())
    # Digest of the blob with the router inputs, float32 [L, R, D]: for each block their mean and
    # their principal directions. The second digest covers the way they were taken. Old rows have
    # None, and their versions are embedded again.
    states_digest: Mapped[str | None]
    states_embedder_digest: Mapped[str | None]
    num_tokens: Mapped[int | None]
    # Digest of the blob with the moments of what attention and the head read; see
    # `assembler.routing.input_moments`. Old rows have None: their mixes take plain means.
    moments_digest: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Projection(Base):
    """A version of a family's projection from domain embeddings to router rows."""

    __tablename__ = "projections"
    __table_args__ = (
        UniqueConstraint("family_id", "number"),
        UniqueConstraint("family_id", "inputs_digest"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("families.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[ProjectionState] = mapped_column(default=ProjectionState.QUEUED)
    documents_digest: Mapped[str]
    training: Mapped[dict[str, Any]]
    # Covers seed, documents, embedder and training, so that equal requests give one projection.
    inputs_digest: Mapped[str]
    embedder_digest: Mapped[str]
    manifest_digest: Mapped[str | None]
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    num_retries: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]

    family: Mapped[Family] = relationship(lazy="raise")


class Artifact(Base):
    """A checkpoint that passed its gate, or whose failed gate was overridden with a record."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("manifest_digest", "recipe_digest"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    manifest_digest: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    recipe_digest: Mapped[str]
    gate_report_digest: Mapped[str]
    # Digest of the provenance, from which it can be made again; None if it was not made here.
    provenance_digest: Mapped[str | None]
    # Digest of the attestation; None if it was published before attestations existed.
    attestation_digest: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SentBlob(Base):
    """A blob that an API key has sent; `sender` is the id of the key."""

    __tablename__ = "sent_blobs"

    sender: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(primary_key=True)


class DownloadableBlob(Base):
    """A tensor or file of a checkpoint that can be downloaded; never the documents of an expert."""

    __tablename__ = "downloadable_blobs"

    digest: Mapped[str] = mapped_column(primary_key=True)
