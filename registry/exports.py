"""A checkpoint as a folder of ordinary files, made straight from the blobs.

The kernel copies, without the bytes passing through this process.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from tempfile import mkdtemp

from registry.blobs import BlobStore, refusing_full_disk, sync_folder
from registry.errors import Conflict, OutOfSpace
from registry.manifests import Manifest
from registry.views import SafetensorsView

CONFIG = "config.json"
TENSORS = "model.safetensors"
# Of one call to the kernel: many tensors are smaller, and progress is heard of in between.
COPY_BYTES = 64 << 20
# What is copied before the disk is told to begin with it.
WRITEBACK_BYTES = 64 << 20

# Hears how many bytes were written since it was called last.
OnBytes = Callable[[int], None]


def export(manifest: Manifest, blobs: BlobStore, folder: Path, *, on_bytes: OnBytes) -> None:
    """Write the Hugging Face folder of a checkpoint; it is on the disk when this returns.

    Raises Conflict when `folder` exists, OutOfSpace, before anything is written where that can be
    known, and NotFound for a lost blob.
    """
    view = SafetensorsView(manifest)
    with new_folder(folder, num_bytes=sum(file_sizes(manifest, blobs).values())) as incoming:
        _write(incoming / CONFIG, config_json(manifest), [], on_bytes)
        for name, digest in manifest.files.items():
            _write(incoming / name, b"", [blobs.local_path(digest)], on_bytes)
        tensors = (blobs.local_path(entry.digest) for entry in view.entries)
        _write(incoming / TENSORS, view.header, tensors, on_bytes)


def file_sizes(manifest: Manifest, blobs: BlobStore) -> dict[str, int]:
    """Bytes of every file of the folder, by name."""
    return {
        CONFIG: len(config_json(manifest)),
        TENSORS: SafetensorsView(manifest).size,
        **{name: blobs.size(digest) or 0 for name, digest in manifest.files.items()},
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


def _write(path: Path, start: bytes, sources: Iterable[Path], on_bytes: OnBytes) -> None:
    """A file of `start` and the bytes of `sources`, end to end."""
    with path.open("wb", buffering=0) as file:
        written = handed_over = file.write(start)
        on_bytes(written)
        for source in sources:
            with source.open("rb", buffering=0) as copied:
                for n in _copied(copied, file):
                    written += n
                    on_bytes(n)
            if written - handed_over >= WRITEBACK_BYTES:
                # The disk writes while the next tensors are copied, instead of all at the end.
                os.posix_fadvise(
                    file.fileno(), handed_over, written - handed_over, os.POSIX_FADV_DONTNEED
                )
                handed_over = written


def _copied(source: FileIO, target: FileIO) -> Iterator[int]:
    """Append all of `source` to `target`; yields how many bytes each call to the kernel took."""
    offset = 0
    while n := os.sendfile(target.fileno(), source.fileno(), offset, COPY_BYTES):
        offset += n
        yield n
