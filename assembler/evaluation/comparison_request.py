"""The request to compare two models, as data; free of torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from assembler.recipes import field_changes
from engine.gates.comparison_gate import ModelPolicy
from engine.gates.report import Data
from registry.errors import InvalidInput


class Folder(Data):
    """A Hugging Face folder on this machine."""

    kind: Literal["folder"] = "folder"
    path: Path

    def __str__(self) -> str:
        return str(self.path)


class Stored(Data):
    """A checkpoint in the blob store, under the name it has in the service."""

    kind: Literal["stored"] = "stored"
    ref: str
    manifest_digest: str

    def __str__(self) -> str:
        return self.ref


class Served(Data):
    """A model behind an OpenAI-compatible server at `http://HOST:PORT/v1`."""

    kind: Literal["served"] = "served"
    address: str
    model: str

    def __str__(self) -> str:
        return f"{self.address}#{self.model}"


Subject = Annotated[Folder | Stored | Served, Field(discriminator="kind")]


class DocumentsFile(Data):
    """A file of documents in the format of experts' `documents.jsonl`.

    `domain` is the domain of the documents that name none.
    """

    domain: str
    path: Path


class ComparisonRequest(Data):
    """Two models, the held-out texts to compare them on, and changes to the default policy."""

    reference: Subject
    candidate: Subject
    texts: tuple[DocumentsFile, ...] = Field(min_length=1)
    policy: dict[str, Any] = Field(default={}, description="Changes to the default policy.")

    def read_policy(self) -> ModelPolicy:
        """Return the policy of the request. Raises InvalidInput with all problems at once."""
        policy, problems = field_changes.read(ModelPolicy, {}, self.policy)
        if problems:
            raise InvalidInput("the policy is refused", problems=tuple(problems))
        return policy
