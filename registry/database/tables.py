"""Families, experts, versions, domain embeddings, projections and artifacts."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import ForeignKey, Identity, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.database.db import Base


class VersionState(StrEnum):
    UPLOADING = "uploading"
    READY = "ready"
    RETIRED = "retired"


class ProjectionState(StrEnum):
    QUEUED = "queued"
    TRAINING = "training"
    READY = "ready"
    FAILED = "failed"


class Family(Base):
    """A seed model and all that branches from it. The manifest is the seed's checkpoint."""

    __tablename__ = "families"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(default="")
    license: Mapped[str]
    state: Mapped[VersionState] = mapped_column(default=VersionState.UPLOADING)
    seed_digest: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Expert(Base):
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
    state: Mapped[VersionState] = mapped_column(default=VersionState.UPLOADING)
    manifest_digest: Mapped[str]
    documents_digest: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]

    expert: Mapped[Expert] = relationship(lazy="raise")


class DomainEmbedding(Base):
    """What a version's documents are about, twice: their mean vector of a text encoder, by which
    experts are found, and the mean router inputs of the version's own network, by which they are
    mixed. Vectors of different embedders never meet, and neither do router inputs."""

    __tablename__ = "domain_embeddings"
    __table_args__ = (UniqueConstraint("expert_version_id", "embedder_digest"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    expert_version_id: Mapped[int] = mapped_column(ForeignKey("expert_versions.id"))
    embedder: Mapped[str]
    embedder_digest: Mapped[str]
    num_documents: Mapped[int]
    vector: Mapped[Any] = mapped_column(Vector())
    # Of the blob with the router inputs, float32 [L, R, D]: in each block their mean and their
    # principal directions; and of how they were taken. None of rows that are older, whose versions
    # are embedded anew.
    states_digest: Mapped[str | None]
    states_embedder_digest: Mapped[str | None]
    num_tokens: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Projection(Base):
    """A version of a family's projection from domain embeddings to router rows."""

    __tablename__ = "projections"
    __table_args__ = (
        UniqueConstraint("family_id", "number"),
        UniqueConstraint("family_id", "inputs_digest"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("families.id"))
    number: Mapped[int]
    state: Mapped[ProjectionState] = mapped_column(default=ProjectionState.QUEUED)
    documents_digest: Mapped[str]
    training: Mapped[dict[str, Any]]
    # Over seed, documents, embedder and training: asking for the same projection again finds it.
    inputs_digest: Mapped[str]
    embedder_digest: Mapped[str]
    manifest_digest: Mapped[str | None]
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]

    family: Mapped[Family] = relationship(lazy="raise")


class Artifact(Base):
    """A gated checkpoint. A row exists only if its gate passed, or was overridden on record."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("manifest_digest", "recipe_digest"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    manifest_digest: Mapped[str]
    recipe: Mapped[dict[str, Any]]
    recipe_digest: Mapped[str]
    gate_report_digest: Mapped[str]
    # Digest of its provenance, from which it can be made again; None if it was not made here.
    provenance_digest: Mapped[str | None]
    # Of what was signed of it; None of those published before anything was.
    attestation_digest: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
