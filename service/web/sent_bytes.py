"""The bytes of an upload, received to the disk without holding a thread while they arrive."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import IO, Annotated

from fastapi import Depends, Request

from registry.blobs.blobs import CHUNK_BYTES
from registry.disk import Growth, refusing_full_disk
from registry.errors import TooLarge
from registry.settings import settings
from service.web import admission
from service.web.threads import STORING

# Written at a time; smaller files never reach the disk twice.
PIECE_BYTES = 256 * 2**10

_slots = admission.Slots("uploads")


async def _receive(request: Request) -> AsyncIterator[IO[bytes]]:
    """Yield the whole body as a file, which is gone when the request ends, however it ends.

    Raises TooLarge, OutOfSpace, and TooManyRequests for more than `max_uploads_per_key` at a time.
    """
    sender = admission.sender_of(request)
    with _slots.held(sender, most=settings().max_uploads_per_key):
        file = await STORING.run(_open)
        growth = Growth(settings().home, reserve_bytes=settings().disk_reserve_bytes)
        try:
            piece, num_bytes = bytearray(), 0
            async for chunk in request.stream():
                piece += chunk
                num_bytes += len(chunk)
                if num_bytes > settings().max_upload_bytes:
                    limit = settings().max_upload_bytes
                    raise TooLarge(f"the blob has more than {limit} bytes, which is the limit")
                if len(piece) >= PIECE_BYTES:
                    await STORING.run(partial(_write, file, bytes(piece), growth))
                    piece.clear()
            await STORING.run(partial(_write, file, bytes(piece), growth))
            yield file
        finally:
            file.close()


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield all bytes of a received file."""
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


# A file of the whole body, in the order of `service.web.checked_routes`: after the key.
SentBytes = Annotated[IO[bytes], Depends(_receive)]


def _open() -> IO[bytes]:
    settings().home.mkdir(parents=True, exist_ok=True)
    # Without a name, so that nothing of it is left when the process dies.
    return tempfile.SpooledTemporaryFile(max_size=PIECE_BYTES, dir=str(settings().home))


def _write(file: IO[bytes], piece: bytes, growth: Growth) -> None:
    growth.by(len(piece))
    with refusing_full_disk(settings().home):
        file.write(piece)
