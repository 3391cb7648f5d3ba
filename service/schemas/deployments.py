"""Deployments: which artifact answers as which model."""

from datetime import datetime
from typing import Literal, Self

from pydantic import AliasChoices, BaseModel, Field

from engine.serving.tables import Deployment, DeploymentState
from service.schemas.common import Id, Line, Request


class DeploymentRequest(Request):
    """An artifact to serve, and its model name."""

    artifact: Id = Field(description="Id of the artifact, as the mix has it in `artifact`.")
    model: Line = Field(description="The model name that applications use.")
    pinned: bool = Field(
        default=False,
        description="Whether it never falls asleep to make room for other models.",
    )


class DeploymentBody(BaseModel):
    """A checkpoint that is served, was served, or will be."""

    object: Literal["deployment"] = Field(
        default="deployment", description="The kind of this object."
    )
    id: int = Field(description="Id of the deployment.")
    artifact_id: int | None = Field(
        description="Id of the artifact that is served; null for a preview."
    )
    preview: bool = Field(
        default=False,
        validation_alias=AliasChoices("preview", "is_preview"),
        description="Whether it is a mix that its gate has not judged.",
    )
    ref: str | None = Field(
        default=None,
        description="The mix as `NAME@NUMBER`, under which it answers too; null for what was not"
        " deployed with its mix.",
    )
    model: str = Field(description="The model name that applications use.")
    state: DeploymentState = Field(
        description="Where the deployment is between its request and its end."
    )
    pinned: bool = Field(
        default=False, description="Whether it never falls asleep to make room for other models."
    )
    error: str | None = Field(
        description="Why it failed, is started again, or waits for memory; null otherwise."
    )
    created_at: datetime = Field(description="When it was created.")
    ready_at: datetime | None = Field(description="When its engine answered first; null before.")

    @classmethod
    def of(cls, row: Deployment) -> Self:
        return cls.model_validate(row, from_attributes=True)
