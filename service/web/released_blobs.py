"""A blob store that ends the transaction of a request before it reads or writes bytes.

Bytes can take minutes, from a slow disk or an object store. A transaction that waits for them holds
a connection, and perhaps locks. So a route writes its rows after its last bytes, together.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, UploadTarget
from registry.database import db


class ReleasedBlobs:
    """The store `blobs`; each call first commits `session` and gives its connection back."""

    def __init__(self, blobs: BlobStore, session: Session) -> None:
        self._blobs, self._session = blobs, session

    def size(self, digest: str) -> int | None:
        return self._released().size(digest)

    def keep(self, digest: str) -> int | None:
        return self._released().keep(digest)

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        return self._released().put(chunks, digest=digest, overwrite=overwrite)

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._released().read(digest, start=start, end=end)

    def local_path(self, digest: str) -> Path:
        return self._released().local_path(digest)

    def upload_target(
        self, digest: str, *, num_bytes: int, seconds: int, sender: int
    ) -> UploadTarget | None:
        return self._released().upload_target(
            digest, num_bytes=num_bytes, seconds=seconds, sender=sender
        )

    def accept(self, digest: str, *, sender: int) -> bool:
        return self._released().accept(digest, sender=sender)

    def _released(self) -> BlobStore:
        if self._session.in_transaction():
            db.release(self._session)
        return self._blobs
