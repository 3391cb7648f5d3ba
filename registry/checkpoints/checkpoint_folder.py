"""A Hugging Face folder on an owner's disk, seen as what the registry wants: headers and blobs."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.blobs.blobs import CHUNK_BYTES, BlobStore
from registry.checkpoints.admission import (
    COMPUTED_FILES,
    FILE_SUFFIXES,
    LEGAL_FILES,
    Shard,
    announce,
)
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_header import parse_header, read_raw_header
from registry.errors import InvalidInput

DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class Source:
    """Where the bytes of a blob lie: from `start` to before `end` of a file."""

    path: Path
    start: int
    end: int

    @classmethod
    def whole(cls, path: Path) -> "Source":
        return cls(path, 0, path.stat().st_size)

    @property
    def num_bytes(self) -> int:
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            remaining = self.num_bytes
            while remaining and (chunk := file.read(min(CHUNK_BYTES, remaining))):
                remaining -= len(chunk)
                yield chunk

    def digest(self) -> str:
        sha = hashlib.sha256()
        for chunk in self.chunks():
            sha.update(chunk)
        return sha.hexdigest()


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """`announcement` is the part of a request that tells of the checkpoint; `sources` by digest."""

    announcement: dict[str, Any]
    sources: dict[str, Source]
    documents: str | None

    @classmethod
    def read(cls, folder: Path, *, documents: Path | None = None) -> "CheckpointFolder":
        """Hash everything in the folder that a registry keeps; seconds for each GB.

        `documents` is a file of JSON Lines to take instead of the folder's own.
        Raises InvalidInput when it holds no checkpoint, InvalidCheckpoint for a bad header.
        """
        shards = sorted(folder.glob("*.safetensors"))
        if not shards or not (folder / "config.json").exists():
            raise InvalidInput(f"{folder} has no config.json with a *.safetensors beside it")
        sources: dict[str, Source] = {}
        tensors = {
            name: _add(sources, source)
            for path in shards
            for name, source in _tensors(path).items()
        }
        files = {path.name: _add(sources, Source.whole(path)) for path in _files(folder)}
        documents = documents or folder / DOCUMENTS
        announcement = {
            "config": json.loads((folder / "config.json").read_text()),
            "files": files,
            "shards": [
                {"file": path.name, "size": path.stat().st_size, "header": read_raw_header(path)}
                for path in shards
            ],
            "digests": tensors,
        }
        digest = _add(sources, Source.whole(documents)) if documents.exists() else None
        return cls(announcement=announcement, sources=sources, documents=digest)

    def keep(self, blobs: BlobStore) -> Manifest:
        """Copy it into a store. Raises InvalidCheckpoint before anything is copied, OutOfSpace."""
        told = self.announcement
        manifest = announce(
            config=told["config"],
            files=told["files"],
            shards=[Shard(**shard) for shard in told["shards"]],
            digests=told["digests"],
        )
        for digest in manifest.digests():
            blobs.put(self.sources[digest].chunks(), digest=digest)
        return manifest


def _tensors(path: Path) -> dict[str, Source]:
    spans = parse_header(read_raw_header(path), file_size=path.stat().st_size, file=path.name)
    return {name: Source(path, span.start, span.end) for name, span in spans.items()}


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if (path.suffix in FILE_SUFFIXES or path.name in LEGAL_FILES)
        and path.name not in COMPUTED_FILES
    ]


def _add(sources: dict[str, Source], source: Source) -> str:
    digest = source.digest()
    sources.setdefault(digest, source)
    return digest
