"""Write a checkpoint from its blobs as a folder of ordinary files."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from registry.blobs import direct_io
from registry.blobs.blobs import BlobStore, sync_folder
from registry.blobs.direct_io import Part
from registry.checkpoints import sparse_tensors
from registry.checkpoints.file_names import ASIDE, ATTESTATION, CONFIG, ROWS_ASIDE, TENSORS
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.disk import check_room, refusing_full_disk
from registry.errors import Conflict, OutOfSpace
from registry.folders import whole_folder

# Called with the number of bytes written since the last call.
OnBytes = Callable[[int], None]


def export(
    manifest: Manifest,
    blobs: BlobStore,
    folder: Path,
    *,
    attestation_digest: str | None = None,
    on_bytes: OnBytes,
) -> None:
    """Write a checkpoint as a Hugging Face folder; all bytes are on the disk when this returns.

    Sparse tensors are expanded, since other programs do not read our format. What is kept aside of
    an expert lies beside it, under names that no other program reads. Raises Conflict if
    `folder` exists, OutOfSpace (before anything is written, if the disk is too full already),
    NotFound for a lost blob, and InvalidCheckpoint for a corrupt sparse tensor.
    """
    sizes = file_sizes(manifest, blobs, attestation_digest=attestation_digest)
    with new_folder(folder, num_bytes=sum(sizes.values())) as incoming:
        (incoming / CONFIG).write_bytes(config_json(manifest))
        on_bytes(len(config_json(manifest)))
        for name, digest in small_files(manifest, attestation_digest).items():
            shutil.copyfile(blobs.local_path(digest), incoming / name)
            on_bytes((incoming / name).stat().st_size)
        opener = sparse_tensors.Opener(blobs)
        for name, view in tensor_files(manifest).items():
            parts = [Part(e.num_bytes, partial(opener.open, e)) for e in view.entries]
            direct_io.write(incoming / name, view.header, parts, on_bytes=on_bytes)


def small_files(manifest: Manifest, attestation_digest: str | None) -> dict[str, str]:
    """Return the digests by name of all files except config and tensors."""
    attested = {} if attestation_digest is None else {ATTESTATION: attestation_digest}
    aside = {ASIDE + name: digest for name, digest in manifest.notes.files.items()}
    return manifest.files | aside | attested


def tensor_files(manifest: Manifest) -> dict[str, SafetensorsView]:
    """Return the files of tensors by name: the checkpoint, and the rows that are kept aside."""
    files = {TENSORS: SafetensorsView(manifest)}
    if manifest.notes.rows:
        rows = replace(manifest, tensors=manifest.notes.rows)
        files[ROWS_ASIDE] = SafetensorsView(rows)
    return files


def file_sizes(
    manifest: Manifest, blobs: BlobStore, *, attestation_digest: str | None = None
) -> dict[str, int]:
    """Return the size in bytes of every file of an exported folder, by name."""
    others = small_files(manifest, attestation_digest)
    return {
        CONFIG: len(config_json(manifest)),
        **{name: view.size for name, view in tensor_files(manifest).items()},
        **{name: blobs.size(digest) or 0 for name, digest in others.items()},
    }


def config_json(manifest: Manifest) -> bytes:
    """Return the bytes of the exported `config.json`."""
    return json.dumps(manifest.config, indent=2).encode()


@contextmanager
def new_folder(folder: Path, *, num_bytes: int) -> Iterator[Path]:
    """Yield a temporary folder to fill; it is synced and renamed to `folder` at the end.

    If the block raises, the temporary folder is removed. Raises Conflict if `folder` exists, and
    OutOfSpace if the disk has less than `num_bytes` free or fills up meanwhile.
    """
    if folder.exists():
        raise Conflict(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < num_bytes:
        raise OutOfSpace(
            f"{folder} needs {num_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        )
    check_room(folder.parent, num_bytes)
    with whole_folder(folder) as incoming, refusing_full_disk(folder.parent):
        yield incoming
        _put_on_disk(incoming)
    sync_folder(folder.parent)


def _put_on_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
