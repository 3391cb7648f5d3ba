"""What a version of an expert is imported from, as the version keeps it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from registry.checkpoints.file_names import ADAPTER_TENSORS

Kind = Literal["adapter", "gguf"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights, `digest` with `size` bytes, and what belongs to it.

    `config` is the adapter's. `files` maps names to digests; they replace files of the seed.
    """

    kind: Kind
    digest: str
    size: int
    config: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def digests(self) -> set[str]:
        """Return the digests of everything that has to be sent."""
        return {self.digest, *self.files.values()}

    def kept(self) -> dict[str, str]:
        """Return the digests, by name, of what is kept beside the imported checkpoint.

        A GGUF file has nothing that the checkpoint does not have.
        """
        return {ADAPTER_TENSORS: self.digest} if self.kind == "adapter" else {}

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_json`."""
        return cls(**content)
