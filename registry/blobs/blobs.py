"""Content-addressed bytes: the protocol of a blob store, and a store in a local folder.

The name of a blob is the SHA-256 of its bytes. So writing a blob twice is harmless, and a reader
can verify it.

A blob is removed in two steps. First it is set aside: whoever asks for it brings it back. Only what
nobody asked for in the meantime is deleted. So a blob that one process finds needless while another
begins to need it is not lost.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from registry.disk import Growth, refusing_full_disk
from registry.errors import InvalidInput, NotFound
from registry.names import is_digest

CHUNK_BYTES = 1 << 20
# Folder of the blobs that are set aside.
ASIDE = "aside"
# Beginning of the names of files that are being written.
INCOMING = "incoming-"


@dataclass(frozen=True)
class UploadTarget:
    """Where a client sends a blob directly: `PUT` to `url` with `headers`."""

    url: str
    headers: dict[str, str]


@dataclass(frozen=True)
class StoredBlob:
    """A blob in a store. Its age is the time since it was last written or kept."""

    digest: str
    num_bytes: int
    written_at: datetime


class BlobStore(Protocol):
    """Stores tensors and files by the digest of their bytes."""

    def size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes, or None if the store does not have it."""

    def keep(self, digest: str) -> int | None:
        """Return the size of a blob, and let its age begin anew; None if it is not there.

        Ask so before a row is written that names the blob: until the row is there, only the age
        protects the blob.
        """

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        """Store bytes and return their digest.

        With `overwrite` the bytes replace what is stored under their digest, which may be damaged.
        Raises InvalidInput if `digest` is given and is not the digest of the bytes, and keeps
        nothing then. Raises OutOfSpace if the disk is full.
        """

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` up to `end`, exclusive, in chunks. Raises NotFound."""

    def local_path(self, digest: str) -> Path:
        """Return the path of a read-only file with the blob's bytes. Raises NotFound."""

    def upload_target(
        self, digest: str, *, num_bytes: int, seconds: int, sender: int
    ) -> UploadTarget | None:
        """Return where a client can send a blob directly for `seconds`; `accept` then takes it.

        None if the blob must go through the web process.
        """

    def accept(self, digest: str, *, sender: int) -> bool:
        """Take a blob that `sender` has sent to its upload target, and return whether it had."""


class StoreUpkeep(BlobStore, Protocol):
    """A store whose blobs can be listed, checked and removed."""

    def stored(self) -> Iterator[StoredBlob]:
        """Yield every blob that is in the store, in the order of their digests."""

    def read_stored(self, digest: str) -> Iterator[bytes]:
        """Yield all bytes of a blob as the store holds them, without any cache. Raises NotFound."""

    def set_aside(self, digest: str) -> None:
        """Hide a blob until it is asked for. Does nothing if it is not there."""

    def aside(self) -> Iterator[StoredBlob]:
        """Yield every blob that is set aside; its age began when it was."""

    def delete_aside(self, digest: str) -> None:
        """Delete the bytes of a blob that is set aside. Does nothing if it was brought back."""

    def discard(self, digest: str) -> None:
        """Delete a damaged blob, so that it counts as missing and can be sent again."""

    def remove_unaccepted(self, *, before: datetime, dry_run: bool) -> int:
        """Delete what clients sent directly before a time and never announced; return the number.

        With `dry_run` it is only counted.
        """


class LocalBlobs:
    """Stores blobs as files `ab/cd...` below one folder; also the cache of a remote store.

    `reserve_bytes` of its disk stay free. The database is on the same disk, and must go on when
    tensors have filled it.
    """

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        self.root = root
        self._reserve_bytes = reserve_bytes
        self._aside = root / ASIDE

    def size(self, digest: str) -> int | None:
        path = self._path(digest)
        while True:
            try:
                return path.stat().st_size
            except FileNotFoundError:
                if not self._bring_back(digest):
                    return None

    def keep(self, digest: str) -> int | None:
        size = self.size(digest)
        # If it was set aside just now, its age began anew too.
        with suppress(FileNotFoundError):
            os.utime(self._path(digest))
        return size

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        # A file is replaced in any case, which costs nothing more.
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
        if not path.exists() and not self._bring_back(digest):
            raise NotFound(f"no blob {digest}")
        return path

    def upload_target(self, digest: str, *, num_bytes: int, seconds: int, sender: int) -> None:
        return None

    def accept(self, digest: str, *, sender: int) -> bool:
        return False

    def stored(self) -> Iterator[StoredBlob]:
        return _files_below(self.root)

    def read_stored(self, digest: str) -> Iterator[bytes]:
        return self.read(digest)

    def set_aside(self, digest: str) -> None:
        path, aside = self._path(digest), self._aside_path(digest)
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            # The age that `aside` reports begins before the blob is hidden.
            os.utime(path)
            path.rename(aside)

    def aside(self) -> Iterator[StoredBlob]:
        return _files_below(self._aside)

    def delete_aside(self, digest: str) -> None:
        self._aside_path(digest).unlink(missing_ok=True)

    def discard(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def remove_unaccepted(self, *, before: datetime, dry_run: bool) -> int:
        return 0

    def _bring_back(self, digest: str) -> bool:
        """Put a blob back that was set aside; return whether it was, or is there by now."""
        path, aside = self._path(digest), self._aside_path(digest)
        while True:
            try:
                aside.rename(path)
            except FileNotFoundError:
                # Perhaps another process was faster, or has just stored the blob again.
                if path.exists():
                    return True
                if not aside.exists():
                    return False
            else:
                with suppress(FileNotFoundError):
                    os.utime(path)
                return True

    def _aside_path(self, digest: str) -> Path:
        return self._aside / digest[:2] / digest[2:]

    def _put(self, chunks: Iterable[bytes], digest: str | None) -> str:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.root, prefix=INCOMING)
        incoming = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                actual = _write_hashing(file, self._while_there_is_room(chunks))
            if digest is not None and actual != digest:
                raise InvalidInput(f"the bytes have SHA-256 {actual}, announced was {digest}")
            target = self._path(actual)
            target.parent.mkdir(mode=0o700, exist_ok=True)
            # A rename is atomic: readers see the whole blob or none, and a repeat changes nothing.
            incoming.chmod(0o400)
            incoming.replace(target)
            sync_folder(target.parent)
            return actual
        finally:
            incoming.unlink(missing_ok=True)

    def _while_there_is_room(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield chunks; raise OutOfSpace before they take what is reserved."""
        growth = Growth(self.root, reserve_bytes=self._reserve_bytes)
        for chunk in chunks:
            growth.by(len(chunk))
            yield chunk

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise InvalidInput(f"{digest!r} is not a SHA-256 in lower-case hexadecimal")
        return self.root / digest[:2] / digest[2:]


def _files_below(root: Path) -> Iterator[StoredBlob]:
    for folder in sorted(root.glob("[0-9a-f][0-9a-f]")):
        with suppress(FileNotFoundError):
            for path in sorted(folder.iterdir()):
                digest = folder.name + path.name
                with suppress(FileNotFoundError):  # set aside or brought back meanwhile
                    status = path.stat()
                    if is_digest(digest):
                        written_at = datetime.fromtimestamp(status.st_mtime, UTC)
                        yield StoredBlob(digest, status.st_size, written_at)


def put_bytes(blobs: BlobStore, data: bytes) -> str:
    """Store bytes and return their digest. Raises OutOfSpace."""
    return blobs.put([data])


def get_bytes(blobs: BlobStore, digest: str) -> bytes:
    """Return all bytes of a blob. Raises NotFound."""
    return b"".join(blobs.read(digest))


def digest_of(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
    return sha.hexdigest()


def _write_hashing(file: BinaryIO, chunks: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    return sha.hexdigest()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk, so that a power cut does not lose new names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
