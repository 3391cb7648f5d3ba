"""Content-addressed bytes: the seam, and the local folder behind it.

A blob is named by the SHA-256 of its bytes, so writing one twice is harmless and reading
can verify.
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
    """Where a client sends a blob by itself: PUT to `url`, with `headers`."""

    url: str
    headers: dict[str, str]


class BlobStore(Protocol):
    """Where tensors and files are kept."""

    def size(self, digest: str) -> int | None:
        """Bytes of a blob, or None when it is not there."""

    def put(self, chunks: Iterable[bytes], *, digest: str | None = None) -> str:
        """Store bytes and return their digest.

        Raises InvalidInput when `digest` is given and is not the digest of what came (nothing is
        kept then), OutOfSpace when the disk is full.
        """

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to before `end`, in chunks. Raises NotFound."""

    def local_path(self, digest: str) -> Path:
        """A read-only file with the blob's bytes, to be mapped into memory. Raises NotFound."""

    def upload_target(self, digest: str, *, num_bytes: int, seconds: int) -> UploadTarget | None:
        """Where to send a blob past the web process, for `seconds`; None when it must pass it."""


class LocalBlobs:
    """Blobs as files `ab/cd...` below one folder; also the cache in front of a remote store."""

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
            # A rename is atomic: readers see the whole blob or none, a repeat changes nothing.
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
    return blobs.put([data])


def get_bytes(blobs: BlobStore, digest: str) -> bytes:
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
    """Raises OutOfSpace, naming `folder`, where the system says that the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"no space left below {folder}") from error
        raise


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk: a power cut could lose those that were given."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
