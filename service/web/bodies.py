"""Bodies of requests: how long they may be, and how slowly they may arrive."""

import re
import time

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.settings import settings

# JSON, and forms.
MAX_BODY_BYTES = 2**20
# The safetensors header of a model with 400 billion parameters is below one MiB.
MAX_ANNOUNCEMENT_BYTES = 8 * 2**20
ANNOUNCEMENTS = re.compile(r"/api/v1/(families|experts/[^/]*/versions)/?")
COMPLETIONS_PREFIX = "/v1/"
# Blobs are streamed to disk and have their own limit.
STREAMED_PREFIX = "/api/v1/blobs/"
# Whoever is refused while sending is still sending: the connection cannot be used again.
CLOSE = {"Connection": "close"}


class LimitBody:
    """Refuses bodies that are too long for their path (413) or arrive too slowly (408).

    A body must arrive at `min_upload_bytes_per_second` on average, after the first `body_seconds`,
    and within `upload_seconds` in all.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = max_bytes(scope["path"])
        announced = announced_bytes(Headers(scope=scope))
        received, is_whole = 0, False
        began: float | None = None

        async def receive_bounded() -> Message:
            nonlocal received, began, is_whole
            # Raise where the body is read, so that the usual error handlers write the answer.
            if limit is not None and announced > limit:
                raise _too_large(limit)
            if is_whole:
                # What comes next is the end of the connection, for which nobody waits in vain.
                return await receive()
            began = time.monotonic() if began is None else began
            with anyio.move_on_after(_patience(received, time.monotonic() - began)):
                message = await receive()
                received += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if limit is not None and received > limit:
                    raise _too_large(limit)
                return message
            raise HTTPException(408, _too_slow(), headers=CLOSE)

        await self.app(scope, receive_bounded, send)


def max_bytes(path: str) -> int | None:
    """Return the longest body that a path takes, None for the path of blobs."""
    if path.startswith(STREAMED_PREFIX):
        return None
    if path.startswith(COMPLETIONS_PREFIX):
        return settings().max_prompt_bytes
    return MAX_ANNOUNCEMENT_BYTES if ANNOUNCEMENTS.fullmatch(path) else MAX_BODY_BYTES


def announced_bytes(headers: Headers) -> int:
    """Return the length that a header tells, 0 without one."""
    text = headers.get("content-length", "")
    # More digits than every size has count as twenty.
    return int(text[:20]) if re.fullmatch("[0-9]+", text) else 0


def _patience(num_bytes: int, seconds: float) -> float:
    """Return how many seconds the next piece may take, after `num_bytes` in `seconds`."""
    limits = settings()
    earned = limits.body_seconds + num_bytes / limits.min_upload_bytes_per_second
    return min(earned, limits.upload_seconds) - seconds


def _too_slow() -> str:
    limits = settings()
    return (
        f"the body arrives too slowly: at least {limits.min_upload_bytes_per_second} bytes a second"
        f" are expected after the first {limits.body_seconds:g} seconds"
    )


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is longer than {limit} bytes", headers=CLOSE)
