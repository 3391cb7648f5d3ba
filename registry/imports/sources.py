"""What a version of an expert is imported from, as the version keeps it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from registry.checkpoints.file_names import ADAPTER_TENSORS
from registry.checkpoints.manifests import Origin

Kind = Literal["adapter", "gguf"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights, `digest` with `size` bytes, and what belongs to it.

    `config` is the adapter's. `files` maps names to digests; they replace files of the seed.
    `origin` says where its owner has it from.
    """

    kind: Kind
    digest: str
    size: int
    config: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None

    def digests(self) -> set[str]:
        """Return the digests of everything that has to be sent."""
        return {self.digest, *self.files.values()}

    def kept(self) -> dict[str, str]:
        """Return the digests, by name, of what is kept beside the imported checkpoint.

        A GGUF file has nothing that the checkpoint does not have.
        """
        return {ADAPTER_TENSORS: self.digest} if self.kind == "adapter" else {}

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object; sources without an origin are as they were before."""
        origin = {} if self.origin is None else {"origin": self.origin.to_json()}
        content = asdict(replace(self, origin=None))
        del content["origin"]
        return content | origin

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_json`."""
        origin = content.get("origin")
        return cls(**content | {"origin": Origin.from_json(origin) if origin else None})
