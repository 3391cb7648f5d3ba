"""Deployments: which artifact answers as which model."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, Field, WithJsonSchema

from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server.engine_options import EngineOptions
from service.json_schemas import schema_of
from service.schemas.common import Id, Line, Request

# `service.web.engine_options` checks them, so that one answer lists every wrong one.
OptionFields = Annotated[dict[str, Any], WithJsonSchema(schema_of(EngineOptions))]


class DeploymentRequest(Request):
    """An artifact to serve, and its model name."""

    artifact: Id = Field(description="Id of the artifact, as the mix has it in `artifact`.")
    model: Line = Field(description="The model name that applications use.")
    pinned: bool = Field(
        default=False,
        description="Whether it never falls asleep to make room for other models.",
    )
    options: OptionFields | None = Field(
        default=None,
        description="How its engine runs. Fields that are left out are defaults. If all of it is"
        " left out, the options of the present deployment of that name stay.",
    )


class DeploymentChange(Request):
    """Other options for a model that is served."""

    options: OptionFields = Field(
        description="How its engine shall run. Fields that are left out are defaults."
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
    options: EngineOptions = Field(
        default=EngineOptions(), description="How its engine runs; null is the default."
    )
    context: int | None = Field(
        default=None,
        description="Tokens that a prompt and its answer may have together; null before its engine"
        " has answered.",
    )
    error: str | None = Field(
        description="Why it failed, is started again, or waits for memory; null otherwise."
    )
    created_at: datetime = Field(description="When it was created.")
    ready_at: datetime | None = Field(description="When its engine answered first; null before.")

    @classmethod
    def of(cls, row: Deployment) -> Self:
        return cls.model_validate(row, from_attributes=True)
