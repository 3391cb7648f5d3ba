"""/blobs: the bytes of tensors, files and documents, by their digest.

A digest is no permission. Who has not sent a blob, and may not download it, is answered as if it
was not there.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from anyio import from_thread
from fastapi import APIRouter, Path, Request, Response

from registry.blobs.blobs import BlobStore, check_room
from registry.catalog import blob_permissions
from registry.database import db
from registry.errors import InvalidInput, NotFound, Problem, TooLarge
from registry.names import is_digest
from registry.settings import settings
from service.keys import Caller
from service.web.auth import Writer
from service.web.deps import Blobs

router = APIRouter(prefix="/blobs", tags=["blobs"])

Digest = Annotated[str, Path(description="SHA-256 of the bytes, in lower-case hexadecimal.")]


@router.head("/{digest}")
def ask(digest: Digest, blobs: Blobs, caller: Writer) -> Response:
    """Answer 200 with the size of a blob that you have sent or may download, or else 404."""
    size = _size(blobs, _checked(digest), caller)
    if size is None:
        raise NotFound(f"no blob {digest}")
    return Response(headers={"Content-Length": str(size)})


@router.put(
    "/{digest}", status_code=201, responses={200: {"description": "You have sent it already."}}
)
def send(digest: Digest, request: Request, blobs: Blobs, caller: Writer) -> Response:
    """Store a blob. Bytes with another digest are refused. Sending a blob again replaces its
    bytes, so that a damaged one is repaired."""
    was_there = _size(blobs, _checked(digest), caller) is not None
    _check_room(int(request.headers.get("content-length", "0")))
    _store(blobs, digest, request)
    with db.transaction() as session:
        blob_permissions.record_sent(session, [digest], sender=caller.key_id)
    return Response(status_code=200 if was_there else 201)


def _size(blobs: BlobStore, digest: str, caller: Caller) -> int | None:
    """Return the size of a blob, or None if it is not stored or the caller may not know of it."""
    # No transaction is open while bytes arrive.
    with db.transaction() as session:
        permitted = blob_permissions.find_permitted(session, [digest], sender=caller.key_id)
    return blobs.size(digest) if permitted else None


def _checked(digest: str) -> str:
    """Return `digest` if it is one. Raises InvalidInput."""
    if not is_digest(digest):
        problem = Problem("/path/digest", "expected a SHA-256 in lower-case hexadecimal")
        raise InvalidInput(f"{digest[:80]!r} names no blob", problems=(problem,))
    return digest


def _check_room(num_bytes: int) -> None:
    """Check the size before any byte is read. Raises TooLarge and OutOfSpace."""
    limit = settings().max_upload_bytes
    if num_bytes > limit:
        raise TooLarge(f"the blob has {num_bytes} bytes; at most {limit} are accepted")
    settings().home.mkdir(parents=True, exist_ok=True)
    check_room(settings().home, num_bytes, reserve_bytes=settings().disk_reserve_bytes)


def _store(blobs: BlobStore, digest: str, request: Request) -> None:
    blobs.put(
        _received(request.stream(), limit=settings().max_upload_bytes),
        digest=digest,
        overwrite=True,
    )


def _received(stream: AsyncIterator[bytes], *, limit: int) -> Iterator[bytes]:
    """Yield the body, which arrives on the event loop, to the thread that writes it to disk.

    Raises TooLarge.
    """
    num_bytes = 0
    while chunk := from_thread.run(_next, stream):
        num_bytes += len(chunk)
        if num_bytes > limit:
            raise TooLarge(f"the blob has more than {limit} bytes, which is the limit")
        yield chunk


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    # Starlette ends a body with an empty chunk.
    return await anext(stream, b"")
