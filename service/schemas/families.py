"""Families, their projections and their policies."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from assembler.recipes.recipe import ProjectionTraining
from assembler.tables import FamilyPolicy
from engine.gates.policy import Policy
from registry.database.tables import Family, Projection, ProjectionState, VersionState
from service.schemas.checkpoints import CheckpointRequest, MissingBlob
from service.schemas.common import Request


class FamilyRequest(CheckpointRequest):
    """The seed of a new family."""

    name: str


class FamilyBody(BaseModel):
    """A family of experts that were trained from one seed."""

    object: Literal["family"] = "family"
    name: str
    state: VersionState
    license: str
    description: str
    seed_digest: str
    created_at: datetime

    @classmethod
    def of(cls, row: Family) -> Self:
        return cls.model_validate(row, from_attributes=True)


class FamilyUploadBody(FamilyBody):
    """A family, and the blobs of its seed that must be sent."""

    missing: list[MissingBlob]


class ProjectionRequest(Request):
    """What a new projection is trained on, and how."""

    documents: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the training documents, JSON Lines, which were sent to /blobs."
        " Default: the documents of the family's newest projection.",
    )
    experts: list[str] = Field(
        default=[],
        description="Registered experts; the projection is trained on their documents too.",
    )
    training: ProjectionTraining = ProjectionTraining()


class ProjectionBody(BaseModel):
    """A projection of a family: it initializes the routers of mixes."""

    object: Literal["projection"] = "projection"
    family: str
    number: int
    state: ProjectionState
    documents_digest: str
    training: dict[str, Any]
    manifest_digest: str | None
    metrics: dict[str, Any] | None
    error: str | None
    created_at: datetime
    ready_at: datetime | None

    @classmethod
    def of(cls, row: Projection) -> Self:
        values = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**values | {"family": row.family.name})


class PolicyBody(BaseModel):
    """What a mix of a family must reach to be published. A request can change it for one mix."""

    object: Literal["policy"] = "policy"
    family: str
    number: int | None = Field(
        description="Version of the policy; null for the default policy of a family without one."
    )
    policy: Policy
    created_at: datetime | None

    @classmethod
    def of(cls, row: FamilyPolicy) -> Self:
        return cls(
            family=row.family.name,
            number=row.number,
            policy=Policy.model_validate(row.policy),
            created_at=row.created_at,
        )
