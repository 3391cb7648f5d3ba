"""Content-addressed bytes: the protocol of a blob store, and a store in a local folder.

The name of a blob is the SHA-256 of its bytes. So writing a blob twice is harmless, and a reader
can verify it.
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from registry.errors import InvalidInput, NotFound, OutOfSpace

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class UploadTarget:
    """Where a client sends a blob directly: `PUT` to `url` with `headers`."""

    url: str
    headers: dict[str, str]


class BlobStore(Protocol):
    """Stores tensors and files by the digest of their bytes."""

    def size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if the store does not have it."""

    def put(self, chunks: Iterable[bytes], *, digest: str | None = None) -> str:
        """Store bytes and return their digest.

        Raises InvalidInput if `digest` is given and is not the digest of the bytes, and keeps
        nothing then. Raises OutOfSpace if the disk is full.
        """

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `end`, exclusive, in chunks. Raises NotFound."""

    def local_path(self, digest: str) -> Path:
        """Return the path of a read-only file with the blob's bytes. Raises NotFound."""

    def upload_target(self, digest: str, *, num_bytes: int, seconds: int) -> UploadTarget | None:
        """Return where a client can send a blob directly for `seconds`.

        None if the blob must go through the web process.
        """


class LocalBlobs:
    """Stores blobs as files `ab/cd...` below one folder; also the cache of a remote store."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def size(self, digest: str) -> int | None:
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, chunks: Iterable[bytes], *, digest: str | None = None) -> str:
        with refusing_full_disk(self.root):
            return self._put(chunks, digest)

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self.local_path(digest).open("rb") as file:
            file.seek(start)
            remaining = None if end is None else end - start
            while remaining is None or remaining > 0:
                chunk = file.read(CHUNK_BYTES if remaining is None else min(CHUNK_BYTES, remaining))
                if not chunk:
                    return
                if remaining is not None:
                    remaining -= len(chunk)
                yield chunk

    def local_path(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.exists():
            raise NotFound(f"no blob {digest}")
        return path

    def upload_target(self, digest: str, *, num_bytes: int, seconds: int) -> None:
        return None

    def _put(self, chunks: Iterable[bytes], digest: str | None) -> str:
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix="incoming-")
        incoming = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                actual = _write_hashing(file, chunks)
            if digest is not None and actual != digest:
                raise InvalidInput(f"the bytes have SHA-256 {actual}, announced was {digest}")
            target = self._path(actual)
            target.parent.mkdir(exist_ok=True)
            # A rename is atomic: readers see the whole blob or none, and a repeat changes nothing.
            incoming.chmod(0o444)
            incoming.replace(target)
            sync_folder(target.parent)
            return actual
        finally:
            incoming.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InvalidInput(f"{digest!r} is not a SHA-256 in lower-case hexadecimal")
        return self.root / digest[:2] / digest[2:]


def put_bytes(blobs: BlobStore, data: bytes) -> str:
    """Store bytes and return their digest. Raises OutOfSpace."""
    return blobs.put([data])


def get_bytes(blobs: BlobStore, digest: str) -> bytes:
    """Return all bytes of a blob. Raises NotFound."""
    return b"".join(blobs.read(digest))


def _write_hashing(file: BinaryIO, chunks: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return sha.hexdigest()


@contextmanager
def refusing_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into OutOfSpace, which names `folder`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no space left below {folder}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a power cut does not lose new names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
