"""/blobs: the bytes of tensors and files, by the digest that names them."""

import shutil
from collections.abc import AsyncIterator, Iterator

from anyio import from_thread
from fastapi import APIRouter, Request, Response

from registry.blobs.blobs import BlobStore
from registry.errors import InvalidInput, NotFound, OutOfSpace, Problem, TooLarge
from registry.names import is_digest
from registry.settings import settings
from service.web.auth import Reader, Writer
from service.web.deps import Blobs

router = APIRouter(prefix="/blobs", tags=["blobs"])


@router.head("/{digest}")
def ask(digest: str, blobs: Blobs, _: Reader) -> Response:
    """Whether a blob is there, and how long it is."""
    size = blobs.size(_checked(digest))
    if size is None:
        raise NotFound(f"no blob {digest}")
    return Response(headers={"Content-Length": str(size)})


@router.put("/{digest}", status_code=201, responses={200: {"description": "It was there."}})
def send(digest: str, request: Request, blobs: Blobs, _: Writer) -> Response:
    """Store a blob. Refused when its bytes have another digest; sending it again is harmless."""
    if blobs.size(_checked(digest)) is not None:
        return Response(status_code=200)
    _check_room(int(request.headers.get("content-length", "0")))
    _store(blobs, digest, request)
    return Response(status_code=201)


def _checked(digest: str) -> str:
    if not is_digest(digest):
        problem = Problem("/path/digest", "expected a SHA-256 in lower-case hexadecimal")
        raise InvalidInput(f"{digest[:80]!r} names no blob", problems=(problem,))
    return digest


def _check_room(num_bytes: int) -> None:
    """Before any byte is taken. Raises TooLarge and OutOfSpace."""
    limit = settings().max_upload_bytes
    if num_bytes > limit:
        raise TooLarge(f"{num_bytes} bytes, at most {limit} are taken")
    settings().home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings().home).free
    if num_bytes > free:
        raise OutOfSpace(f"{num_bytes} bytes, but only {free} are free on the disk")


def _store(blobs: BlobStore, digest: str, request: Request) -> None:
    blobs.put(_received(request.stream(), limit=settings().max_upload_bytes), digest=digest)


def _received(stream: AsyncIterator[bytes], *, limit: int) -> Iterator[bytes]:
    """The body as it arrives on the event loop, for the worker thread that writes it to disk."""
    num_bytes = 0
    while chunk := from_thread.run(_next, stream):
        num_bytes += len(chunk)
        if num_bytes > limit:
            raise TooLarge(f"more than the {limit} bytes that are taken")
        yield chunk


async def _next(stream: AsyncIterator[bytes]) -> bytes:
    # Starlette ends a body with an empty chunk.
    return await anext(stream, b"")
