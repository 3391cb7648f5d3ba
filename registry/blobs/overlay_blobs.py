"""A blob store that reads from two stores and writes to one of them, for temporary results."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.blobs.blobs import BlobStore, LocalBlobs, UploadTarget
from registry.disk import reserve_on


class OverlayBlobs:
    """Reads from `base` and `aside`, and writes to `aside` only."""

    def __init__(self, base: BlobStore, aside: LocalBlobs) -> None:
        self._base, self._aside = base, aside

    def size(self, digest: str) -> int | None:
        return self._holder(digest).size(digest)

    def keep(self, digest: str) -> int | None:
        return self._holder(digest).keep(digest)

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        return self._aside.put(chunks, digest=digest, overwrite=overwrite)

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._holder(digest).read(digest, start=start, end=end)

    def local_path(self, digest: str) -> Path:
        return self._holder(digest).local_path(digest)

    def upload_target(
        self, digest: str, *, num_bytes: int, seconds: int, sender: int
    ) -> UploadTarget | None:
        return None

    def accept(self, digest: str, *, sender: int) -> bool:
        return False

    def _holder(self, digest: str) -> BlobStore:
        return self._base if self._aside.size(digest) is None else self._aside


@contextmanager
def beside(base: BlobStore) -> Iterator[OverlayBlobs]:
    """Open a store over `base` whose writes are removed at the end of the `with` block."""
    with TemporaryDirectory(prefix="nexusmix-scratch-") as folder:
        aside = Path(folder)
        yield OverlayBlobs(base, LocalBlobs(aside, reserve_bytes=reserve_on(aside)))
