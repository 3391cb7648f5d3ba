"""Read a Hugging Face folder on an owner's disk as headers and blobs for the registry."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.blobs.blobs import CHUNK_BYTES, BlobStore
from registry.checkpoints.admission import (
    COMPUTED_FILES,
    FILE_SUFFIXES,
    LEGAL_FILES,
    CheckpointAnnouncement,
    Shard,
    announce,
)
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_header import parse_header, read_raw_header
from registry.ingest.folder_contents import check_folder, read_config, weight_files

DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class Source:
    """The bytes of a blob in a file: from `start` to before `end`."""

    path: Path
    start: int
    end: int

    @classmethod
    def whole(cls, path: Path) -> "Source":
        """Return a source of all bytes of a file."""
        return cls(path, 0, path.stat().st_size)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks of at most CHUNK_BYTES."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            remaining = self.num_bytes
            while remaining and (chunk := file.read(min(CHUNK_BYTES, remaining))):
                remaining -= len(chunk)
                yield chunk

    def digest(self) -> str:
        """Return the SHA-256 of the bytes in hexadecimal."""
        sha = hashlib.sha256()
        for chunk in self.chunks():
            sha.update(chunk)
        return sha.hexdigest()


@dataclass(frozen=True, kw_only=True)
class CheckpointFolder:
    """A folder that was read.

    `announcement` has the fields of a request that describe the checkpoint. `sources` maps digests
    to bytes. `documents` is the digest of the sample documents, None if there are none.
    """

    announcement: dict[str, Any]
    sources: dict[str, Source]
    documents: str | None

    @classmethod
    def read(cls, folder: Path, *, documents: Path | None = None) -> "CheckpointFolder":
        """Read a folder and hash everything that a registry stores; it takes seconds for each GB.

        `documents` is a file of JSON Lines that replaces the folder's `documents.jsonl`. Raises
        InvalidInput if the folder has no checkpoint, see `check_folder`, and InvalidCheckpoint for
        a bad header.
        """
        check_folder(folder)
        shards = weight_files(folder)
        sources: dict[str, Source] = {}
        tensors = {
            name: _add(sources, source)
            for path in shards
            for name, source in _tensors(path).items()
        }
        files = {path.name: _add(sources, Source.whole(path)) for path in small_files(folder)}
        documents = documents or folder / DOCUMENTS
        announcement = {
            "config": read_config(folder),
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
        """Copy the checkpoint into a store and return its manifest.

        Raises InvalidCheckpoint before anything is copied, and OutOfSpace.
        """
        announcement = self.announcement
        manifest = announce(
            CheckpointAnnouncement(
                config=announcement["config"],
                files=announcement["files"],
                shards=[Shard(**shard) for shard in announcement["shards"]],
                digests=announcement["digests"],
            )
        )
        for digest in manifest.digests():
            blobs.put(self.sources[digest].chunks(), digest=digest)
        return manifest


def check_headers(folder: Path) -> None:
    """Check a folder by its config, headers and file names as a registry does; hash nothing.

    Raises InvalidInput if the folder has no checkpoint, and InvalidCheckpoint with every problem.
    """
    check_folder(folder)
    shards = [
        Shard(path.name, path.stat().st_size, read_raw_header(path))
        for path in weight_files(folder)
    ]
    names = {name for path in weight_files(folder) for name in _tensors(path)}
    announce(
        CheckpointAnnouncement(
            config=read_config(folder),
            files={path.name: _stand_in(path.name) for path in small_files(folder)},
            shards=shards,
            digests={name: _stand_in(name) for name in names},
        )
    )


def small_files(folder: Path) -> list[Path]:
    """Return the files beside the weights that a registry keeps, such as the tokenizer's."""
    return [
        path
        for path in sorted(folder.iterdir())
        if (path.suffix in FILE_SUFFIXES or path.name in LEGAL_FILES)
        and path.name not in COMPUTED_FILES
        and path.is_file()
        and not path.name.startswith(".")
    ]


def _stand_in(name: str) -> str:
    """Return a digest that is as good as the real one where no bytes are compared."""
    return hashlib.sha256(name.encode()).hexdigest()


def _tensors(path: Path) -> dict[str, Source]:
    spans = parse_header(read_raw_header(path), file_size=path.stat().st_size, file=path.name)
    return {name: Source(path, span.start, span.end) for name, span in spans.items()}


def _add(sources: dict[str, Source], source: Source) -> str:
    digest = source.digest()
    sources.setdefault(digest, source)
    return digest
