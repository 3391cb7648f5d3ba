"""Read a Hugging Face folder on an owner's disk as headers and blobs for the registry."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.blobs.blobs import BlobStore
from registry.checkpoints.admission import (
    COMPUTED_FILES,
    FILE_SUFFIXES,
    LEGAL_FILES,
    CheckpointAnnouncement,
    Shard,
    announce,
    check_fits,
    tied_as,
)
from registry.checkpoints.file_names import TENSORS
from registry.checkpoints.manifests import Cast, Manifest, Notes, TensorEntry
from registry.checkpoints.safetensors_header import LENGTH_BYTES
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.errors import InvalidInput
from registry.ingest.fitting import OwnCheckpoint, Seed, fit
from registry.ingest.folder_contents import check_folder, read_config
from registry.ingest.shards import weight_files
from registry.ingest.sources import Source, TensorSource, read_tensors

DOCUMENTS = "documents.jsonl"
ADDED_TOKENS = "added_tokens.json"


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
    def read(
        cls, folder: Path, *, documents: Path | None = None, seed: Seed | None = None
    ) -> "CheckpointFolder":
        """Read a folder and hash everything that a registry stores; it takes seconds for each GB.

        `documents` is a file of JSON Lines that replaces the folder's `documents.jsonl`. An expert
        is fitted to the `seed` of its family. Raises InvalidInput if the folder has no checkpoint,
        see `check_folder`, InvalidCheckpoint for a bad header or a number that cannot be cast, and
        Incompatible, see `fit`.
        """
        own = _read(folder, seed)
        sources: dict[str, Source] = {}

        def hash_tensor(tensor: TensorSource) -> tuple[str, bool]:
            digest, is_lossless = tensor.hashed()
            sources.setdefault(digest, tensor)
            return digest, is_lossless

        def hash_file(path: Path) -> str:
            digest = Source.whole(path).digest()
            sources.setdefault(digest, Source.whole(path))
            return digest

        announcement = _announcement(own, hash_tensor=hash_tensor, hash_file=hash_file)
        documents = documents or folder / DOCUMENTS
        digest = hash_file(documents) if documents.exists() else None
        return cls(announcement=announcement, sources=sources, documents=digest)

    def keep(self, blobs: BlobStore, *, seed: Manifest | None = None) -> Manifest:
        """Copy the checkpoint into a store, without what its `seed` has, and return its manifest.

        Raises InvalidCheckpoint, and Incompatible if it does not fit the seed, before anything is
        copied, and OutOfSpace.
        """
        manifest = announce(_parsed(self.announcement))
        known: set[str] = set()
        if seed is not None:
            manifest, known = tied_as(seed, manifest), seed.digests()
            check_fits(manifest, seed)
        for digest in manifest.digests() - known:
            blobs.put(self.sources[digest].chunks(), digest=digest)
        return manifest


def check_headers(folder: Path, *, seed: Seed | None = None) -> None:
    """Check a folder by its config, headers and file names as a registry does; hash nothing.

    Raises InvalidInput if the folder has no checkpoint, InvalidCheckpoint with every problem, and
    Incompatible if it cannot be fitted to the `seed` of its family.
    """
    own = _read(folder, seed)
    announcement = _announcement(
        own,
        # Two equal matrices have one digest, and only equal shapes can be equal.
        hash_tensor=lambda tensor: (_stand_in(f"{tensor.dtype}{tensor.shape}"), True),
        hash_file=lambda path: _stand_in(path.name),
    )
    manifest = announce(_parsed(announcement))
    if seed is not None:
        check_fits(tied_as(seed.manifest, manifest), seed.manifest)


def small_files(folder: Path) -> list[Path]:
    """Return the files beside the weights that a registry keeps, such as the tokenizer's."""
    return [
        path
        for path in sorted(folder.iterdir())
        if (path.suffix in FILE_SUFFIXES or path.name in LEGAL_FILES)
        and path.name not in COMPUTED_FILES
        and path.is_file()
        and not path.name.startswith(".")
        and not _says_nothing(path)
    ]


def _says_nothing(path: Path) -> bool:
    """Tell whether a file is the empty list of added tokens that some tools write."""
    return path.name == ADDED_TOKENS and path.read_bytes().strip() in (b"", b"{}")


def _read(folder: Path, seed: Seed | None) -> OwnCheckpoint:
    check_folder(folder)
    tensors: dict[str, TensorSource] = {}
    for path in weight_files(folder):
        for name, tensor in read_tensors(path).items():
            if name in tensors:
                raise InvalidInput(
                    f"tensor {name!r} is in both {tensors[name].path.name} and {path.name}: leave"
                    " only the shards of one checkpoint"
                )
            tensors[name] = tensor
    own = OwnCheckpoint(
        config=read_config(folder),
        tensors=tensors,
        files={path.name: path for path in small_files(folder)},
    )
    return own if seed is None else fit(own, seed)


def _announcement(
    own: OwnCheckpoint,
    *,
    hash_tensor: Callable[[TensorSource], tuple[str, bool]],
    hash_file: Callable[[Path], str],
) -> dict[str, Any]:
    """Return the fields of a request that describe a checkpoint as one file of tensors."""
    hashed = {name: hash_tensor(tensor) for name, tensor in own.tensors.items()}
    entries = {
        name: TensorEntry(tensor.dtype, tensor.shape, hashed[name][0])
        for name, tensor in own.tensors.items()
    }
    view = SafetensorsView(Manifest(config=own.config, tensors=entries))
    notes = {
        "casts": {
            name: {"dtype": tensor.stored_dtype, "is_lossless": hashed[name][1]}
            for name, tensor in own.tensors.items()
            if tensor.is_cast
        },
        "rows": {
            name: {"dtype": rows.dtype, "shape": rows.shape, "digest": hash_tensor(rows)[0]}
            for name, rows in own.rows.items()
        },
        "tokens": own.tokens,
        "files": {name: hash_file(path) for name, path in own.files_aside.items()},
    }
    return {
        "config": own.config,
        "files": {name: hash_file(path) for name, path in own.files.items()} | own.kept_files,
        "shards": [
            {"file": TENSORS, "size": view.size, "header": view.header[LENGTH_BYTES:].decode()}
        ],
        "digests": {name: entry.digest for name, entry in entries.items()},
    } | ({"notes": notes} if any(notes.values()) else {})


def _parsed(announcement: Mapping[str, Any]) -> CheckpointAnnouncement:
    notes = announcement.get("notes", {})
    return CheckpointAnnouncement(
        config=announcement["config"],
        files=announcement["files"],
        shards=[Shard(**shard) for shard in announcement["shards"]],
        digests=announcement["digests"],
        notes=Notes(
            casts={name: Cast(**cast) for name, cast in notes.get("casts", {}).items()},
            rows={name: TensorEntry(**entry) for name, entry in notes.get("rows", {}).items()},
            tokens=notes.get("tokens", {}),
            files=notes.get("files", {}),
        ),
    )


def _stand_in(text: str) -> str:
    """Return a digest that is as good as the real one where no bytes are compared."""
    return hashlib.sha256(text.encode()).hexdigest()
