"""An engine that answers at once, as a bare ASGI application: it should cost next to nothing.

A streaming request gets one event, and then nothing until its client leaves.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mix",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "The mix speaks."},
            }
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8},
    }
).encode()
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "mix",
    "choices": [{"index": 0, "finish_reason": None, "delta": {"content": "The"}}],
}
EVENT = f"data: {json.dumps(CHUNK)}\n\n".encode()

Message = dict[str, Any]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer every request alike."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    streams = b'"stream":true' in body.replace(b" ", b"")
    kind = b"text/event-stream" if streams else b"application/json"
    headers = [(b"content-type", kind)]
    if not streams:
        headers.append((b"content-length", str(len(ANSWER)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send(
        {"type": "http.response.body", "body": EVENT if streams else ANSWER, "more_body": streams}
    )
    while streams and (await receive())["type"] != "http.disconnect":
        pass
