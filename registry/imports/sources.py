"""What a version of an expert is imported from, as the version keeps it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from registry.checkpoints.file_names import ADAPTER_TENSORS
from registry.checkpoints.manifests import Origin

Kind = Literal["adapter", "gguf", "address"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights, `digest` with `size` bytes, and what belongs to it.

    `config` is the adapter's. `files` maps names to digests; they replace files of the seed.
    `origin` says where its owner has it from. `address` is what a worker was told to fetch; until
    that is done, or if it is a checkpoint, the kind is `address`, without a file.
    """

    kind: Kind
    digest: str = ""
    size: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    address: str | None = None

    def digests(self) -> set[str]:
        """Return the digests of the file and of what belongs to it; none before it is known."""
        return set() if self.kind == "address" else {self.digest, *self.files.values()}

    def sent_by_owner(self) -> set[str]:
        """Return the digests of what its owner has to send: nothing that a worker fetches."""
        return set() if self.address is not None else self.digests()

    def kept(self) -> dict[str, str]:
        """Return the digests, by name, of what is kept beside the imported checkpoint.

        A GGUF file has nothing that the checkpoint does not have.
        """
        return {ADAPTER_TENSORS: self.digest} if self.kind == "adapter" else {}

    def to_json(self) -> dict[str, Any]:
        """Return the source as a JSON object. Without origin and address it is as of old."""
        content = asdict(replace(self, origin=None))
        content["origin"] = None if self.origin is None else self.origin.to_json()
        for name in ("origin", "address"):
            if content[name] is None:
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read the result of `to_json`."""
        origin = content.get("origin")
        return cls(**content | {"origin": Origin.from_json(origin) if origin else None})


def is_same(source: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a version's source is what is announced; both are JSON objects.

    What an address stood for counts no more once it was fetched.
    """
    if source is not None and wanted["kind"] == "address":
        return bool(source.get("address") == wanted["address"])
    return source == wanted
