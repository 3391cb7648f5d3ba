"""Tables of mixes, their versions, policies of families, events of jobs, and workers."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, UniqueConstraint, false, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.database.db import Base
from registry.database.tables import Family


class MixState(StrEnum):
    QUEUED = "queued"
    ASSEMBLING = "assembling"
    FINETUNING = "finetuning"
    COMPRESSING = "compressing"
    GATING = "gating"
    PUBLISHING = "publishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    # A step has killed its process too often; it waits for a person.
    PARKED = "parked"


# States that do not change by themselves.
FINAL_STATES = (MixState.SUCCEEDED, MixState.FAILED, MixState.CANCELLED, MixState.PARKED)
# From these a retry goes on.
RETRIED_STATES = (MixState.FAILED, MixState.CANCELLED, MixState.PARKED)
UNFINISHED_STATES = tuple(state for state in MixState if state not in FINAL_STATES)


class Mix(Base):
    __tablename__ = "mixes"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("families.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    family: Mapped[Family] = relationship(lazy="raise")


class MixVersion(Base):
    """One version of a mix: the pinned recipe, and the results of each step."""

    __tablename__ = "mix_versions"
    __table_args__ = (UniqueConstraint("mix_id", "number"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    mix_id: Mapped[int] = mapped_column(ForeignKey("mixes.id"))
    number: Mapped[int]
    recipe: Mapped[dict[str, Any]]
    recipe_digest: Mapped[str]
    deploy: Mapped[bool]
    # Whether it is served from its assembly on; see `assembler.mixes.previews`.
    preview: Mapped[bool] = mapped_column(default=False, server_default=false())
    # Every worker asks for the unfinished ones each second.
    state: Mapped[MixState] = mapped_column(default=MixState.QUEUED, index=True)
    job_id: Mapped[str] = mapped_column(unique=True)
    # Progress of the running step: step, num_steps, num_tokens, loss, eta_seconds.
    progress: Mapped[dict[str, Any] | None]
    assembled_digest: Mapped[str | None]
    finetuned_digest: Mapped[str | None]
    compressed_digest: Mapped[str | None]
    # Curve of size against divergence; see `engine.compression.int8_curve`.
    curve_digest: Mapped[str | None]
    # Where it was assembled, finetuned and compressed; see `assembler.assembly.provenance`.
    environment: Mapped[dict[str, Any] | None]
    gate_report_digest: Mapped[str | None]
    # Record of an override of the gate; see `assembler.mixes.overrides`.
    override_digest: Mapped[str | None]
    artifact_id: Mapped[int | None] = mapped_column(ForeignKey("artifacts.id"))
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
    # How long a refused candidate is kept; see `assembler.mixes.retention`.
    kept_until: Mapped[datetime | None]

    mix: Mapped[Mix] = relationship(lazy="raise")

    @property
    def trained_digest(self) -> str | None:
        """Return the digest before any compression; changed versions start from it."""
        return self.finetuned_digest or self.assembled_digest

    @property
    def candidate_digest(self) -> str | None:
        """Return the digest of the mix that is gated and published."""
        return self.compressed_digest or self.trained_digest


class FamilyPolicy(Base):
    """One version of a family's default policy for the gates of its mixes."""

    __tablename__ = "family_policies"
    __table_args__ = (UniqueConstraint("family_id", "number"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("families.id", ondelete="CASCADE"))
    number: Mapped[int]
    policy: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    family: Mapped[Family] = relationship(lazy="raise")


class JobEvent(Base):
    """An event of a job. The identity orders events, and is the id of the server-sent event."""

    __tablename__ = "job_events"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(index=True)
    # state (a step began or ended), metrics (a training step), message (for people)
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Worker(Base):
    """A worker that runs jobs, by the name of the settings."""

    __tablename__ = "workers"

    executor_id: Mapped[str] = mapped_column(primary_key=True)
    # Grows with each take-over of the name; see `assembler.mixes.fence`.
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    # The lease; see `assembler.jobs.worker_lease`.
    renewed_at: Mapped[datetime] = mapped_column(server_default=func.now())
