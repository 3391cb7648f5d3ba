"""Experts and their versions."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from registry.catalog import experts, unready
from registry.database.tables import Expert, ExpertVersion, VersionState
from service.schemas.checkpoints import (
    CheckpointBody,
    CheckpointRequest,
    DocumentsWish,
    MissingBlob,
)
from service.schemas.common import Line, Request, Text


class VersionRequest(CheckpointRequest, DocumentsWish):
    """A new version of an expert."""

    family: Line = Field(description="Name of the family that the expert branched from.")
    documents: Line = Field(description="SHA-256 of the sample documents, JSON Lines.")


class ExpertBody(BaseModel):
    """A dense model that knows one domain."""

    object: Literal["expert"] = Field(default="expert", description="The kind of this object.")
    id: str = Field(description="The name; `after` takes it to ask for the next page.")
    name: str = Field(description="Name of the expert, also of its domain.")
    family: str = Field(description="Name of its family.")
    license: str = Field(description="License of its newest ready version, as an SPDX expression.")
    description: str = Field(description="What it is expert in.")
    notes: list[str] = Field(
        description="What differs between its newest version and the folder of its owner."
    )
    created_at: datetime = Field(description="When its first version was announced.")

    @classmethod
    def of(cls, row: Expert, *, notes: list[str]) -> Self:
        return cls(
            id=row.name,
            name=row.name,
            family=row.family.name,
            license=row.license,
            description=row.description,
            notes=notes,
            created_at=row.created_at,
        )


class VersionBody(BaseModel):
    """One version of an expert."""

    object: Literal["expert.version"] = Field(
        default="expert.version", description="The kind of this object."
    )
    expert: str = Field(description="Name of the expert.")
    version: int = Field(description="Number of the version, from 1.")
    ref: str = Field(description="`NAME@NUMBER`, as requests name it.")
    license: str = Field(description="License of this version, as an SPDX expression.")
    description: str = Field(description="What this version is expert in.")
    state: VersionState = Field(
        description="`uploading`: bytes are missing. `importing`, `checking` and `embedding`: a"
        " worker has work to do. `ready`: mixes can use it. `failed`: `error` says why. `retired`:"
        " new mixes cannot use it."
    )
    error: str | None = Field(
        description="Why it failed, or why a worker tries again; null otherwise."
    )
    embedded: bool = Field(
        description="Whether its domain embedding exists; mixes and suggestions need it."
    )
    progress: str | None = Field(
        description="What its import or its embedding does, and how far it is; null otherwise."
    )
    manifest_digest: str | None = Field(
        description="SHA-256 that stands for the whole checkpoint; null until it is imported."
    )
    documents_digest: str = Field(description="SHA-256 of its sample documents.")
    private_documents: bool = Field(
        description="Whether no report quotes the documents and no projection learns from them."
    )
    documents_forgotten_at: datetime | None = Field(
        description="When the documents were deleted: finetunes and gates cannot read them since;"
        " null if they are kept."
    )
    notes: list[str] = Field(
        description="What it was imported from, and what differs from the folder of its owner, each"
        " as a sentence: casts, tensors left out, what is kept aside."
    )
    warnings: list[str] = Field(
        description="What to know before it is used in a mix, each as a sentence."
    )
    created_at: datetime = Field(description="When it was created.")
    ready_at: datetime | None = Field(description="When it could be used; null before.")
    kept_until: datetime | None = Field(
        description="Until when an upload can go on or be retried that was never ready; null"
        " otherwise. Then it is deleted."
    )

    @classmethod
    def of(
        cls, row: ExpertVersion, *, embedded: bool, notes: list[str], warnings: list[str]
    ) -> Self:
        return cls(
            expert=row.expert.name,
            version=row.number,
            ref=experts.ref_of(row),
            license=row.license,
            description=row.description,
            state=row.state,
            error=row.error,
            embedded=embedded,
            progress=row.progress,
            manifest_digest=row.manifest_digest,
            documents_digest=row.documents_digest,
            private_documents=row.private_documents,
            documents_forgotten_at=row.documents_forgotten_at,
            notes=notes,
            warnings=warnings,
            created_at=row.created_at,
            ready_at=row.ready_at,
            kept_until=unready.until(row),
        )


class ManifestBody(CheckpointBody):
    """The checkpoint of a version: what another service compares with its own."""

    object: Literal["manifest"] = Field(default="manifest", description="The kind of this object.")


class VersionUploadBody(VersionBody):
    """A version, and its blobs that must be sent."""

    missing: list[MissingBlob] = Field(description="Blobs that the service does not have yet.")


class ExpertWithVersions(ExpertBody):
    """An expert and all its versions."""

    versions: list[VersionBody] = Field(description="Newest first.")
    newest: VersionBody | None = Field(
        description="The version that the name alone means: the newest ready one; null if none is."
    )


class SuggestRequest(Request):
    """A text, to find experts whose domain is near."""

    text: Text = Field(
        min_length=1,
        max_length=100_000,
        description="Text of the domain that an expert is looked for.",
    )
    family: Line = Field(description="Name of the family to search in.")
    limit: int = Field(default=3, ge=1, le=100, description="Largest number of suggestions.")


class Suggestion(BaseModel):
    """An expert near a text."""

    expert: str = Field(description="Name of the expert.")
    ref: str = Field(description="Its newest embedded version, `NAME@NUMBER`.")
    similarity: float = Field(
        description="Cosine of the text's and the domain's embeddings; 1 is the same direction."
    )
