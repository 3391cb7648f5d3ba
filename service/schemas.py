"""What goes in and out over HTTP below /api/v1, as documented in its OpenAPI page."""

from datetime import datetime
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from assembler.mixes.waivers import Waiver
from assembler.planning.plan_data import Plan
from assembler.recipes import presets
from assembler.recipes.recipe import Preset, ProjectionTraining, Recipe
from assembler.tables import FamilyPolicy, JobEvent, MixState, MixVersion
from engine.gates.policy import Policy
from engine.serving.tables import Deployment, DeploymentState
from registry.catalog import experts
from registry.database.tables import (
    Expert,
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)

T = TypeVar("T")


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[T]):
    """Part of a list; the next part begins `after` the id of its last entry."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool

    @classmethod
    def of(cls, rows: list[T], *, limit: int) -> Self:
        """`rows` are one more than `limit` if there are so many."""
        return cls(data=rows[:limit], has_more=len(rows) > limit)


class ShardBody(_Request):
    """A safetensors file before it is sent."""

    file: str = Field(examples=["model.safetensors"])
    size: int = Field(ge=0, description="Bytes of the whole file.")
    header: str = Field(description="The JSON text of its header, as it stands in the file.")


class CheckpointRequest(_Request):
    """A checkpoint as its headers tell it; bytes are asked for afterwards."""

    license: str = Field(min_length=1, max_length=100, examples=["Apache-2.0"])
    description: str = Field(default="", max_length=10_000)
    config: dict[str, Any] = Field(description="config.json")
    files: dict[str, str] = Field(description="File name -> SHA-256: tokenizer.json and the like.")
    shards: list[ShardBody] = Field(min_length=1)
    digests: dict[str, str] = Field(description="Tensor name -> SHA-256 of its raw bytes.")


class FamilyRequest(CheckpointRequest):
    name: str


class VersionRequest(CheckpointRequest):
    family: str
    documents: str = Field(description="SHA-256 of the sample documents, JSON Lines.")


class MissingBlob(BaseModel):
    """A blob to be sent: PUT its bytes to `url`, relative or not, with `headers`."""

    digest: str
    size: int | None = Field(description="Known for tensors.")
    url: str
    headers: dict[str, str] = {}


class FamilyBody(BaseModel):
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
    missing: list[MissingBlob]


class ProjectionRequest(_Request):
    documents: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of the training documents, JSON Lines; sent to /blobs before. Those "
        "of the family's newest projection if not given.",
    )
    experts: list[str] = Field(
        default=[], description="Registered experts whose documents are learned from as well."
    )
    training: ProjectionTraining = ProjectionTraining()


class ProjectionBody(BaseModel):
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
    """What mixes of a family must reach, where a request says nothing else."""

    object: Literal["policy"] = "policy"
    family: str
    number: int | None = Field(description="None: the default policy, the family has none yet.")
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


class ExpertBody(BaseModel):
    object: Literal["expert"] = "expert"
    id: str = Field(description="Its name: what a page is continued after.")
    name: str
    family: str
    license: str
    description: str
    created_at: datetime

    @classmethod
    def of(cls, row: Expert) -> Self:
        return cls(
            id=row.name,
            name=row.name,
            family=row.family.name,
            license=row.license,
            description=row.description,
            created_at=row.created_at,
        )


class VersionBody(BaseModel):
    object: Literal["expert.version"] = "expert.version"
    expert: str
    version: int
    ref: str
    state: VersionState
    embedded: bool = Field(description="Its domain is known: it can be mixed and suggested.")
    manifest_digest: str
    documents_digest: str
    created_at: datetime
    ready_at: datetime | None

    @classmethod
    def of(cls, row: ExpertVersion, *, embedded: bool) -> Self:
        return cls(
            expert=row.expert.name,
            version=row.number,
            ref=experts.ref_of(row),
            state=row.state,
            embedded=embedded,
            manifest_digest=row.manifest_digest,
            documents_digest=row.documents_digest,
            created_at=row.created_at,
            ready_at=row.ready_at,
        )


class VersionUploadBody(VersionBody):
    missing: list[MissingBlob]


class ExpertWithVersions(ExpertBody):
    versions: list[VersionBody] = Field(description="Newest first.")


class SuggestRequest(_Request):
    text: str = Field(min_length=1, max_length=100_000)
    family: str
    limit: int = Field(default=3, ge=1, le=100)


class Suggestion(BaseModel):
    expert: str
    ref: str
    similarity: float = Field(description="Cosine of the domains: 1 is the same direction.")


class PresetBody(BaseModel):
    """A recipe that has a name, with all its fields."""

    object: Literal["preset"] = "preset"
    name: Preset
    description: str = Field(description="What it is for, in a line.")
    assembly: dict[str, Any]
    finetune: dict[str, Any] = Field(description="But for its tokens.")
    tokens_per_expert: int = Field(
        description="Of its finetune for each expert of a mix, where a request names no tokens."
    )
    changed: dict[str, Any] = Field(
        description="The fields in which it is not the default preset: `FIELD`, `finetune.FIELD`."
    )

    @classmethod
    def of(cls, name: Preset) -> Self:
        return cls(
            name=name,
            description=presets.DESCRIPTIONS[name],
            assembly=presets.assembly(name).model_dump(mode="json", exclude={"preset"}),
            finetune=presets.finetune(name, num_experts=1).model_dump(
                mode="json", exclude={"tokens"}
            ),
            tokens_per_expert=presets.tokens_per_expert(name),
            changed=presets.changed(name),
        )


class PlanBody(Plan):
    object: Literal["mix.plan"] = "mix.plan"

    @classmethod
    def of(cls, planned: Plan) -> Self:
        return cls(**dict(planned))


class MixBody(BaseModel):
    object: Literal["mix.version"] = "mix.version"
    id: int
    name: str
    version: int
    ref: str
    family: str
    preset: Preset
    base: str | None = Field(description="The version that it was made from, if it was.")
    state: MixState
    deploy: bool
    recipe: dict[str, Any]
    progress: dict[str, Any] | None = Field(
        description="Of the running step: step, num_steps, num_tokens, loss, eta_seconds."
    )
    artifact: int | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    kept_until: datetime | None = Field(
        description="Of what its gate has refused: how long it can be exported and overruled."
    )

    @classmethod
    def of(cls, row: MixVersion) -> Self:
        recipe = Recipe.model_validate(row.recipe)
        return cls(
            id=row.id,
            name=row.mix.name,
            version=row.number,
            ref=f"{row.mix.name}@{row.number}",
            family=recipe.family,
            preset=recipe.preset,
            base=recipe.base,
            state=row.state,
            deploy=row.deploy,
            recipe=row.recipe,
            progress=row.progress,
            artifact=row.artifact_id,
            error=row.error,
            created_at=row.created_at,
            finished_at=row.finished_at,
            kept_until=row.kept_until,
        )


class OverrideRequest(_Request):
    """Publish what its gate has refused."""

    scope: list[Waiver] = Field(
        min_length=1,
        description="The limits that were not kept, all of them, as the gate report has them.",
    )
    reason: str = Field(
        min_length=1, max_length=2000, description="Why it may be used all the same."
    )


class SigningKeyBody(BaseModel):
    """The public key of this service: what it signs are Ed25519 signatures."""

    object: Literal["signing_key"] = "signing_key"
    algorithm: Literal["ed25519"] = "ed25519"
    public_key: str = Field(description="32 bytes in hexadecimal.")


class FileBody(BaseModel):
    name: str
    size: int


class FilesBody(BaseModel):
    """The files of a checkpoint; `manifest_digest` names what is in them, `attestation_digest` what
    the service has signed of it, if it published it."""

    object: Literal["list"] = "list"
    manifest_digest: str
    attestation_digest: str | None
    data: list[FileBody]


class EventBody(BaseModel):
    id: int
    type: str
    message: str
    data: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, row: JobEvent) -> Self:
        return cls.model_validate(row, from_attributes=True)


class DeploymentRequest(_Request):
    artifact: int
    model: str = Field(description="The name that applications ask for.")


class DeploymentBody(BaseModel):
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
