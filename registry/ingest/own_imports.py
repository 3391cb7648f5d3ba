"""Read what an owner gives that is no checkpoint: the folder of an adapter, or a GGUF file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.ingest import adapter_folder, gguf_file
from registry.ingest.sources import Source


@dataclass(frozen=True, kw_only=True)
class OwnImport:
    """What is imported: the field of a request that announces it, and bytes by digest."""

    announcement: dict[str, Any]
    sources: dict[str, Source]


def read(path: Path) -> OwnImport | None:
    """Read a source of an expert; None if nothing at the path is one.

    Raises InvalidInput and InvalidCheckpoint for a source that is refused.
    """
    if path.is_dir() and adapter_folder.is_adapter(path):
        adapter = adapter_folder.AdapterFolder.read(path)
        return OwnImport(announcement={"adapter": adapter.announcement}, sources=adapter.sources)
    if found := gguf_file.find(path):
        file = gguf_file.GgufFile.read(found)
        return OwnImport(announcement={"gguf": file.announcement}, sources=file.sources)
    return None
