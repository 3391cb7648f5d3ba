"""What clients of the OpenAI-compatible routes expect of HTTP, from browsers to proxies."""

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.settings import settings
from service.errors import OPENAI_PREFIX

EVENT_STREAM = "text/event-stream"
# Proxies hold back answers until they are whole, or compress them in blocks, unless they are asked
# not to. nginx reads the first of these.
UNBUFFERED = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache, no-transform"}
# How long a browser may remember that it may ask, in seconds.
PREFLIGHT_SECONDS = 600


class OpenAiClients:
    """Answers the browsers of other sites, and HEAD; keeps proxies from holding streams back.

    Scripts of other sites may ask when the setting `cors_origins` names their origin. They bring a
    key: the session of a browser does not count for them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        origins = settings().cors_origins.split()
        self._openai: ASGIApp = self._answer
        if origins:
            self._openai = CORSMiddleware(
                self._answer,
                allow_origins=origins,
                allow_methods=["GET", "HEAD", "POST"],
                # OpenAI's client adds headers of its own.
                allow_headers=["*"],
                expose_headers=["*"],
                max_age=PREFLIGHT_SECONDS,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_openai = scope["type"] == "http" and scope["path"].startswith(OPENAI_PREFIX)
        await (self._openai if is_openai else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_head = scope["method"] == "HEAD"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith(EVENT_STREAM):
                    headers.update(UNBUFFERED)
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        asked = {**scope, "method": "GET"} if is_head else scope
        await self._app(asked, receive, send_on)
