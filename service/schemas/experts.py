"""Experts and their versions."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from registry.catalog import experts
from registry.database.tables import Expert, ExpertVersion, VersionState
from service.schemas.checkpoints import CheckpointRequest, MissingBlob
from service.schemas.common import Request


class VersionRequest(CheckpointRequest):
    """A new version of an expert."""

    family: str
    documents: str = Field(description="SHA-256 of the sample documents, JSON Lines.")


class ExpertBody(BaseModel):
    """A dense model that knows one domain."""

    object: Literal["expert"] = "expert"
    id: str = Field(description="The name; `after` takes it to ask for the next page.")
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
    """One version of an expert."""

    object: Literal["expert.version"] = "expert.version"
    expert: str
    version: int
    ref: str
    state: VersionState
    embedded: bool = Field(
        description="Whether its domain embedding exists; mixes and suggestions need it."
    )
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
    """A version, and its blobs that must be sent."""

    missing: list[MissingBlob]


class ExpertWithVersions(ExpertBody):
    """An expert and all its versions."""

    versions: list[VersionBody] = Field(description="Newest first.")


class SuggestRequest(Request):
    """A text, to find experts whose domain is near."""

    text: str = Field(min_length=1, max_length=100_000)
    family: str
    limit: int = Field(default=3, ge=1, le=100)


class Suggestion(BaseModel):
    """An expert near a text."""

    expert: str
    ref: str
    similarity: float = Field(
        description="Cosine of the text's and the domain's embeddings; 1 is the same direction."
    )
