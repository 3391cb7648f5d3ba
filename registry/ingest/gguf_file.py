"""Read a GGUF file on an owner's disk as an announcement and bytes for the registry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidInput
from registry.imports import gguf_header
from registry.imports.gguf_header import GgufHeader
from registry.ingest.shards import weight_files
from registry.ingest.sources import Source

SUFFIX = ".gguf"
# A chat template is longer, and nothing here needs it.
MAX_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A file that was read: its announcement, and bytes by digest."""

    announcement: dict[str, Any]
    sources: dict[str, Source]

    @classmethod
    def read(cls, path: Path) -> "GgufFile":
        """Read the header and hash the file. Raises InvalidCheckpoint for a bad header."""
        header = gguf_header.read(path)
        whole = Source.whole(path)
        digest = whole.digest()
        announcement = {
            "file": path.name,
            "size": whole.num_bytes,
            "digest": digest,
            "metadata": scalars(header),
            "tensors": {
                name: {"type": tensor.type, "shape": list(tensor.shape)}
                for name, tensor in header.tensors.items()
            },
        }
        return cls(announcement=announcement, sources={digest: whole})


def find(path: Path) -> Path | None:
    """Return the GGUF file at a path, or the only one in a folder without other weights.

    Raises InvalidInput for a folder with several.
    """
    if path.is_file():
        return path if path.suffix == SUFFIX else None
    files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() and not weight_files(path) else []
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise InvalidInput(f"{path} has {len(files)} GGUF files ({names}): name one of them")
    return files[0] if files else None


def scalars(header: GgufHeader) -> dict[str, Any]:
    """Return the metadata without lists, whose tokens alone would be megabytes."""
    return {
        key: value
        for key, value in header.metadata.items()
        if isinstance(value, str | int | float) and len(str(value)) <= MAX_CHARACTERS
    }
