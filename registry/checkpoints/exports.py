"""A checkpoint as a folder of ordinary files, made straight from the blobs."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

from registry.blobs import direct_io
from registry.blobs.blobs import BlobStore, refusing_full_disk, sync_folder
from registry.blobs.direct_io import Part
from registry.checkpoints import attestations, sparse_tensors
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.errors import Conflict, OutOfSpace

CONFIG = "config.json"
TENSORS = "model.safetensors"

# Hears how many bytes were written since it was called last.
OnBytes = Callable[[int], None]


def export(
    manifest: Manifest,
    blobs: BlobStore,
    folder: Path,
    *,
    attestation_digest: str | None = None,
    on_bytes: OnBytes,
) -> None:
    """Write the Hugging Face folder of a checkpoint; it is on the disk when this returns. Sparse
    tensors are expanded: nobody else reads ours.

    Raises Conflict when `folder` exists, OutOfSpace, before anything is written where that can be
    known, NotFound for a lost blob, and InvalidCheckpoint for a sparse one that is corrupt.
    """
    view = SafetensorsView(manifest)
    sizes = file_sizes(manifest, blobs, attestation_digest=attestation_digest)
    with new_folder(folder, num_bytes=sum(sizes.values())) as incoming:
        (incoming / CONFIG).write_bytes(config_json(manifest))
        on_bytes(len(config_json(manifest)))
        for name, digest in small_files(manifest, attestation_digest).items():
            shutil.copyfile(blobs.local_path(digest), incoming / name)
            on_bytes((incoming / name).stat().st_size)
        opener = sparse_tensors.Opener(blobs)
        parts = [Part(e.num_bytes, partial(opener.open, e)) for e in view.entries]
        direct_io.write(incoming / TENSORS, view.header, parts, on_bytes=on_bytes)


def small_files(manifest: Manifest, attestation_digest: str | None) -> dict[str, str]:
    """Digests of what stands beside config and tensors, by name."""
    attested = {} if attestation_digest is None else {attestations.FILE: attestation_digest}
    return manifest.files | attested


def file_sizes(
    manifest: Manifest, blobs: BlobStore, *, attestation_digest: str | None = None
) -> dict[str, int]:
    """Bytes of every file of the folder, by name."""
    others = small_files(manifest, attestation_digest)
    return {
        CONFIG: len(config_json(manifest)),
        TENSORS: SafetensorsView(manifest).size,
        **{name: blobs.size(digest) or 0 for name, digest in others.items()},
    }


def config_json(manifest: Manifest) -> bytes:
    """`config.json` as it is handed out."""
    return json.dumps(manifest.config, indent=2).encode()


@contextmanager
def new_folder(folder: Path, *, num_bytes: int) -> Iterator[Path]:
    """A folder to be filled, which is put on the disk and gets its name when that went well.

    Raises Conflict when `folder` exists, OutOfSpace when the disk has less than `num_bytes`, or is
    filled by others meanwhile.
    """
    if folder.exists():
        raise Conflict(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < num_bytes:
        raise OutOfSpace(
            f"{folder} needs {num_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free"
        )
    incoming = Path(mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        with refusing_full_disk(folder.parent):
            yield incoming
            _put_on_disk(incoming)
        incoming.chmod(0o755)
        incoming.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _put_on_disk(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
