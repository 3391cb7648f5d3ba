"""What the gate between any two models is asked, as data; free of torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from assembler.recipes import presets
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
    """The model of that name behind an OpenAI-compatible server's `http://HOST:PORT/v1`."""

    kind: Literal["served"] = "served"
    address: str
    model: str

    def __str__(self) -> str:
        return f"{self.address}#{self.model}"


Subject = Annotated[Folder | Stored | Served, Field(discriminator="kind")]


class DocumentsFile(Data):
    """Documents as experts bring them; `domain` names those that name none themselves."""

    domain: str
    path: Path


class ComparisonRequest(Data):
    reference: Subject
    candidate: Subject
    texts: tuple[DocumentsFile, ...] = Field(min_length=1)
    policy: dict[str, Any] = Field(default={}, description="Changes to the default policy.")

    def read_policy(self) -> ModelPolicy:
        """Raises InvalidInput with everything that is wrong."""
        policy, problems = presets.read(ModelPolicy, {}, self.policy)
        if problems:
            raise InvalidInput("the policy is refused", problems=tuple(problems))
        return policy
