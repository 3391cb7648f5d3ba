"""Fetch one file over HTTP, go on where an earlier attempt ended, and check its digest."""

import fcntl
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from registry.blobs.blobs import CHUNK_BYTES
from registry.disk import Growth, check_room, refusing_full_disk
from registry.errors import (
    Conflict,
    Forbidden,
    InvalidCheckpoint,
    NotFound,
    TooLarge,
    Unavailable,
)

NAME = "nexusmix"
# A size that a server tells is then the one of the file.
HEADERS = {"User-Agent": NAME, "Accept-Encoding": "identity"}
PART = ".part"
# Attempts that bring no byte. The library repeats some failures by itself.
MAX_ATTEMPTS = 3
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404

# Takes the number of bytes that have just arrived.
OnBytes = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of a file before it is fetched: its size in bytes, and a digest.

    `git_sha1` is the name that git has for its content.
    """

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None


NOTHING = Expected()


def fetch(
    url: str,
    path: Path,
    *,
    what: str,
    headers: Mapping[str, str],
    expected: Expected = NOTHING,
    max_bytes: int | None = None,
    hint: str,
    on_bytes: OnBytes = lambda _: None,
) -> None:
    """Fetch `url` to `path`, unless that is there and its size known. Sentences call it `what`.

    Raises NotFound, Forbidden with the `hint`, TooLarge, OutOfSpace, Unavailable if the line
    breaks, Conflict if another process fetches it, and InvalidCheckpoint for another content than
    expected. The same call goes on where it ended, if the size is known.
    """
    if expected.size is None:
        # Nobody can tell whether what came earlier is complete, or what lies there today.
        path.unlink(missing_ok=True)
        part_of(path).unlink(missing_ok=True)
    if path.exists():
        return
    check_size(expected.size, what=what, max_bytes=max_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    with refusing_full_disk(path.parent), telling_errors(what, hint=hint), part.open("ab") as file:
        hold(file, what)
        sink = _Sink(file, what, expected=expected, max_bytes=max_bytes, on_bytes=on_bytes)
        _repeat(url, sink, headers=headers)
    _check_digest(part, expected, what=what)
    part.rename(path)


def part_of(path: Path) -> Path:
    """Return the file that holds what has arrived so far."""
    return path.with_name(f"{path.name}{PART}")


def arrived(path: Path) -> int:
    """Return how many bytes of a file that is not complete have arrived."""
    part = part_of(path)
    return part.stat().st_size if part.exists() else 0


def check_size(size: int | None, *, what: str, max_bytes: int | None) -> None:
    """Raise TooLarge for a size in bytes that is over the limit."""
    if size is not None and max_bytes is not None and size > max_bytes:
        raise TooLarge(f"{what} has {size} bytes or more, at most {max_bytes} are taken")


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the library from writing to the terminal; what it says is in our errors."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def telling_errors(what: str, *, hint: str) -> Iterator[None]:
    """Turn errors of the library into ours. The `hint` says how to get a permission."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise Forbidden(f"{what} is gated: {hint}") from error
    except RepositoryNotFoundError as error:
        raise NotFound(f"{what} does not exist, or is private: {hint}") from error
    except RevisionNotFoundError as error:
        raise NotFound(f"{what} names a revision that its repository does not have") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == NOT_FOUND:
            raise NotFound(f"{what} does not exist") from error
        if status in (UNAUTHORIZED, FORBIDDEN):
            raise Forbidden(f"{what} may not be read: {hint}") from error
        raise Unavailable(f"{what} was answered {status}; try again later") from error
    except (httpx2.TransportError, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
        raise Unavailable(
            f"{what} did not arrive: {error or type(error).__name__}; what came is kept, and the"
            " same call goes on there"
        ) from error
    except OfflineModeIsEnabled as error:
        raise Unavailable(f"{what} is not fetched, since HF_HUB_OFFLINE is set") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # The library's own check of the length.
        raise Unavailable(f"{what} did not arrive completely; try again") from error


class _Sink:
    """The file that the library writes to: counts what comes, and refuses what is too much."""

    def __init__(
        self,
        file: BinaryIO,
        what: str,
        *,
        expected: Expected,
        max_bytes: int | None,
        on_bytes: OnBytes,
    ) -> None:
        self._file, self._what, self._on_bytes = file, what, on_bytes
        self._size, self._max_bytes = expected.size, max_bytes
        self._growth = Growth(Path(file.name).parent)
        if self._size is not None:
            check_room(Path(file.name).parent, self._size - self.tell())

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes are there as expected."""
        return self._size is not None and self.tell() == self._size

    def check_complete(self) -> None:
        """Raise Unavailable if bytes are missing."""
        if self._size is not None and self.tell() < self._size:
            raise Unavailable(
                f"{self._what} ended after {self.tell()} of {self._size} bytes; the same call goes"
                " on there"
            )

    def write(self, data: bytes) -> int:
        num_bytes = self.tell() + len(data)
        check_size(num_bytes, what=self._what, max_bytes=self._max_bytes)
        if self._size is not None and num_bytes > self._size:
            self.seek(0)
            self.truncate()
            raise InvalidCheckpoint(f"{self._what} has more bytes than the {self._size} announced")
        self._growth.by(len(data))
        self._on_bytes(len(data))
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def truncate(self) -> int:
        return self._file.truncate()


def hold(file: BinaryIO, what: str) -> None:
    """Keep other processes from writing to a file. Raises Conflict if one does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"{what} is being fetched by another process") from None


def _repeat(url: str, sink: _Sink, *, headers: Mapping[str, str]) -> None:
    """Fetch until all bytes are there, or attempts bring none."""
    import httpx2
    from huggingface_hub.file_download import http_get

    num_failures = 0
    while not sink.is_complete:
        reached = sink.tell()
        try:
            # The library wants a file, and calls what a sink has.
            http_get(url, cast(BinaryIO, sink), resume_size=reached, headers=dict(headers))
            return sink.check_complete()
        except httpx2.TransportError:
            num_failures = num_failures + 1 if sink.tell() == reached else 0
            if num_failures == MAX_ATTEMPTS:
                raise


def _check_digest(part: Path, expected: Expected, *, what: str) -> None:
    """Compare a file with the digest that is expected, and remove it if it is another."""
    if expected.sha256 is not None:
        sha, wanted = hashlib.sha256(), expected.sha256
    elif expected.git_sha1 is not None:
        # This finds damage, and protects from nobody.
        sha = hashlib.sha1(b"blob %d\0" % part.stat().st_size, usedforsecurity=False)
        wanted = expected.git_sha1
    else:
        return
    with part.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha.update(chunk)
    if sha.hexdigest() != wanted:
        part.unlink()
        raise InvalidCheckpoint(
            f"{what} arrived with the {sha.name.upper()} {sha.hexdigest()} in place of {wanted}: it"
            " was removed, fetch it again"
        )
