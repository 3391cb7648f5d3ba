"""Families, their projections and their policies."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from assembler.recipes.recipe import ProjectionTraining
from assembler.tables import FamilyPolicy
from engine.gates.policy import Policy
from registry.catalog import unready
from registry.database.tables import Family, Projection, ProjectionState, VersionState
from service.schemas.checkpoints import CheckpointBody, CheckpointRequest, MissingBlob
from service.schemas.common import Line, Lines, Request


class FamilyRequest(CheckpointRequest):
    """The seed of a new family."""

    name: Line = Field(description="Name of the new family.")


class FamilyBody(BaseModel):
    """A family of experts that were trained from one seed."""

    object: Literal["family"] = Field(default="family", description="The kind of this object.")
    name: str = Field(description="Name of the family.")
    state: VersionState = Field(
        description="`uploading`: bytes of its seed are missing. `checking`: a worker reads them."
        " `ready`: experts can be registered. `failed`: `error` says why."
    )
    error: str | None = Field(
        description="Why its seed is refused, or why a worker tries again; null otherwise."
    )
    num_checks: int = Field(description="How often a worker was asked to check its seed.")
    license: str = Field(description="License of the seed, as an SPDX expression.")
    description: str = Field(description="What the seed is, for readers.")
    seed_digest: str = Field(description="SHA-256 that stands for the seed's checkpoint.")
    created_at: datetime = Field(description="When it was created.")
    kept_until: datetime | None = Field(
        description="Until when a seed that is not ready can be sent or retried; null otherwise."
        " Then the family is deleted."
    )

    @classmethod
    def of(cls, row: Family) -> Self:
        return cls(
            name=row.name,
            state=row.state,
            error=row.error,
            num_checks=row.num_checks,
            license=row.license,
            description=row.description,
            seed_digest=row.seed_digest,
            created_at=row.created_at,
            kept_until=unready.until(row),
        )


class FamilyUploadBody(FamilyBody):
    """A family, and the blobs of its seed that must be sent."""

    missing: list[MissingBlob] = Field(description="Blobs that the service does not have yet.")


class SeedBody(CheckpointBody):
    """The seed of a family as experts are compared with it."""

    object: Literal["seed"] = Field(default="seed", description="The kind of this object.")


class ProjectionRequest(Request):
    """What a new projection is trained on, and how."""

    documents: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the training documents, JSON Lines, which were sent to /blobs."
        " Default: the documents of the family's newest projection.",
    )
    experts: Lines = Field(
        default=[],
        description="Registered experts; the projection is trained on their documents too.",
    )
    all_experts: bool = Field(
        default=False,
        description="Whether it is trained on the documents of every ready expert of the family"
        " too, each of the newest version.",
    )
    training: ProjectionTraining = Field(
        default=ProjectionTraining(), description="How the projection is trained."
    )


class ProjectionProgress(BaseModel):
    """How far the training of a projection is."""

    stage: str = Field(description="What is done now.")
    percent: int = Field(description="How much of it is done, from 0 to 100.")


class ProjectionBody(BaseModel):
    """A projection of a family: it initializes the routers of mixes."""

    object: Literal["projection"] = Field(
        default="projection", description="The kind of this object."
    )
    family: str = Field(description="Name of the family.")
    number: int = Field(description="Number of the projection, from 1.")
    state: ProjectionState = Field(
        description="Where the projection is between its request and its end."
    )
    documents_digest: str = Field(description="SHA-256 of the training documents.")
    training: dict[str, Any] = Field(description="How it is trained.")
    manifest_digest: str | None = Field(
        description="SHA-256 that stands for its tensors; null before it is ready."
    )
    metrics: dict[str, Any] | None = Field(
        description="What its training measured; null before it is ready."
    )
    progress: ProjectionProgress | None = Field(
        default=None, description="How far its training is; null unless it is trained now."
    )
    error: str | None = Field(
        description="Why it failed, or why a worker tries again; null otherwise."
    )
    created_at: datetime = Field(description="When it was created.")
    ready_at: datetime | None = Field(description="When it was ready; null before.")

    @classmethod
    def of(cls, row: Projection, progress: ProjectionProgress | None = None) -> Self:
        values = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**values | {"family": row.family.name, "progress": progress})


class PolicyBody(BaseModel):
    """What a mix of a family must reach to be published. A request can change it for one mix."""

    object: Literal["policy"] = Field(default="policy", description="The kind of this object.")
    family: str = Field(description="Name of the family.")
    number: int | None = Field(
        description="Version of the policy; null for the default policy of a family without one."
    )
    policy: Policy = Field(description="The policy itself.")
    created_at: datetime | None = Field(description="When it was put; null for the default policy.")

    @classmethod
    def of(cls, row: FamilyPolicy) -> Self:
        return cls(
            family=row.family.name,
            number=row.number,
            policy=Policy.model_validate(row.policy),
            created_at=row.created_at,
        )
