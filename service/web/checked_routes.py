"""Routes that check a request in order: key and permission, body, rate.

Texts and numbers of the body must be such as can be kept. What stands in a path, a query or a
header is checked by `service.web.middleware.CheckTarget`, sizes by `service.web.bodies`.
"""

import email.message
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response, params
from fastapi.routing import APIRoute

from registry import bounded_json, texts
from registry.errors import InvalidInput, Problem, pointer
from registry.settings import settings
from service.web import admission
from service.web.threads import READING

# A shorter JSON text is read in less time than a thread needs to begin.
READ_AT_ONCE_BYTES = 16 * 2**10

T = TypeVar("T")

_rate = admission.Rate()


class CheckedRequest(Request):
    """A request whose JSON is bounded; see `registry.bounded_json`."""

    async def json(self) -> Any:
        """Return the JSON value of the body, read once. Raises InvalidInput."""
        if not hasattr(self, "_json"):
            self._json = await read_json(await self.body())
        return self._json


class CheckedRoute(APIRoute):
    """A route of a CheckedRequest; see the module."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        asked = admission.asked_before_body(self.dependant)
        body = self.body_field
        has_form = body is not None and isinstance(body.field_info, params.Form)

        async def handle_checked(request: Request) -> Response:
            checked = CheckedRequest(request.scope, request.receive)
            await admission.admit(checked, asked)
            if has_form:
                await _check_form(checked)
            elif body is not None and _is_json(checked.headers.get("content-type", "")):
                await checked.json()
            sender = admission.sender_of(checked)
            _rate.count(sender, per_second=settings().max_requests_per_second)
            return await handle(checked)

        return handle_checked


async def read_json(body: bytes) -> Any:
    """Return the value of a JSON body, and None of none. Raises InvalidInput."""
    if not body:
        return None
    return await read_at_once(lambda: bounded_json.parse(body), num_bytes=len(body))


async def read_at_once(read: Callable[[], T], *, num_bytes: int) -> T:
    """Return what `read` makes of a text; a long one is read in a thread."""
    return read() if num_bytes <= READ_AT_ONCE_BYTES else await READING.run(read)


def _is_json(content_type: str) -> bool:
    """Tell whether FastAPI reads a body of this type as JSON."""
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    is_application = message.get_content_maintype() == "application"
    return is_application and (subtype == "json" or subtype.endswith("+json"))


async def _check_form(request: Request) -> None:
    """Raise InvalidInput for a field with an unfit character, and for an uploaded file."""
    form = await request.form()
    for name, value in form.multi_items():
        at = pointer(name)
        if not isinstance(value, str):
            await form.close()
            problem = Problem(at, "is a file; no form takes one")
            raise InvalidInput(f"{at} {problem.detail}", problems=(problem,))
        texts.check(value, at=at)
