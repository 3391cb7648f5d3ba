"""Deployments: which artifact answers as which model."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from engine.serving.tables import Deployment, DeploymentState
from service.schemas.common import Request


class DeploymentRequest(Request):
    """An artifact to serve, and its model name."""

    artifact: int
    model: str = Field(description="The model name that applications use.")


class DeploymentBody(BaseModel):
    """An artifact that is served, was served, or will be."""

    object: Literal["deployment"] = "deployment"
    id: int
    artifact_id: int
    model: str
    state: DeploymentState
    error: str | None
    created_at: datetime
    ready_at: datetime | None

    @classmethod
    def of(cls, row: Deployment) -> Self:
        return cls.model_validate(row, from_attributes=True)
