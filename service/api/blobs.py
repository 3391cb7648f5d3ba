"""/blobs: the bytes of tensors, files and documents, by their digest.

A digest is no permission. Who has not sent a blob, and may not download it, is answered as if it
was not there.
"""

from functools import partial
from typing import IO, Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.catalog import blob_permissions
from registry.database import db
from registry.disk import check_room
from registry.errors import InvalidInput, NotFound, Problem, TooLarge
from registry.names import is_digest
from registry.settings import settings
from service.keys import Caller
from service.web.auth import Writer
from service.web.bodies import announced_bytes
from service.web.checked_routes import CheckedRoute
from service.web.sent_bytes import SentBytes, chunks
from service.web.threads import STORING

router = APIRouter(prefix="/blobs", tags=["blobs"], route_class=CheckedRoute)

# These routes open transactions of their own, and none while bytes arrive.
Blobs = Annotated[BlobStore, Depends(blob_stores.store)]
Digest = Annotated[str, Path(description="SHA-256 of the bytes, in lower-case hexadecimal.")]


def _checked_before(request: Request, digest: Digest) -> str:
    """Return the digest of a blob that may be sent, before any byte is read."""
    _check_room(announced_bytes(request.headers))
    return _checked(digest)


SentDigest = Annotated[str, Depends(_checked_before)]


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
async def send(digest: SentDigest, body: SentBytes, blobs: Blobs, caller: Writer) -> Response:
    """Store a blob. Bytes with another digest are refused. Sending a blob again replaces its
    bytes, so that a damaged one is repaired."""
    status = await STORING.run(partial(_store, blobs, digest, body, caller))
    return Response(status_code=status)


def _size(blobs: BlobStore, digest: str, caller: Caller) -> int | None:
    """Return the size of a blob, or None if it is not stored or the caller may not know of it."""
    # No transaction is open while bytes are stored.
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


def _store(blobs: BlobStore, digest: str, body: IO[bytes], caller: Caller) -> int:
    """Store the bytes and who has sent them. Returns the status of the answer."""
    was_there = _size(blobs, digest, caller) is not None
    blobs.put(chunks(body), digest=digest, overwrite=True)
    with db.transaction() as session:
        blob_permissions.record_sent(session, [digest], sender=caller.key_id)
    return 200 if was_there else 201
