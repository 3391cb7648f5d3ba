"""Turns errors into HTTP answers: problem+json (RFC 9457), and OpenAI's envelope below /v1.

One table gives each kind of error its status.
"""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from registry import errors
from registry.database.db import OUTAGES
from registry.errors import NexusmixError, Problem, pointer
from service.error_codes import code_of
from service.schemas.errors import ErrorBody

OPENAI_PREFIX = "/v1/"
RETRY_AFTER_SECONDS = 2
MEDIA_TYPE = "application/problem+json"

# A class without an entry has the status of its nearest ancestor.
STATUSES: dict[type[NexusmixError], int] = {
    errors.InvalidInput: 422,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.GateFailed: 409,
    errors.StepFailed: 500,
    errors.TooManyRequests: 429,
    errors.OutOfSpace: 507,
    errors.Unavailable: 503,
    errors.TimedOut: 504,
    NexusmixError: 500,
}


# Codes for errors of the framework, which have only a status. The first entry of a status counts.
STATUS_CODES = {status: code_of(kind) for kind, status in reversed(STATUSES.items())}

# For the OpenAPI document: what every route answers besides its own statuses.
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {"model": ErrorBody, "description": "An error, as application/problem+json."}
}
OPENAI_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error in OpenAI's envelope."}
}

# Our code -> the code that programs for OpenAI know.
OPENAI_CODES = {
    "not_found": "model_not_found",
    "unauthenticated": "invalid_api_key",
    "too_many_requests": "rate_limit_exceeded",
}

log = structlog.stdlib.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Let the application answer every error in the dialect of the request's path."""
    app.add_exception_handler(NexusmixError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_input)
    app.add_exception_handler(DataError, _on_invalid_input)
    app.add_exception_handler(HTTPException, _on_http_exception)
    for outage in OUTAGES:
        app.add_exception_handler(outage, _on_database_down)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def document(document: dict[str, Any]) -> None:
    """Give the errors of an OpenAPI document the media type that they are sent with.

    FastAPI documents every model with the media type of the route's own answer.
    """
    for path in document["paths"].values():
        for operation in path.values():
            error = operation["responses"].get("default", {})
            if "content" in error:
                [schema] = error["content"].values()
                error["content"] = {MEDIA_TYPE: schema}


def status_of(error: NexusmixError) -> int:
    """Return the HTTP status of a domain error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def openai_error(
    status: int, message: str, *, code: str | None, param: str | None = None
) -> dict[str, Any]:
    """Return an error in OpenAI's envelope. All four keys are always present."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else kind
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response(
    request: Request,
    status: int,
    detail: str,
    *,
    code: str,
    problems: tuple[Problem, ...] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Return an error answer in the dialect of the request's path."""
    headers = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if _is_openai(request):
        # OpenAI's clients expect 400 for a wrong body.
        status = 400 if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
        # A problem of the whole body has no parameter.
        param = (problems[0].pointer.lstrip("/") or None) if problems else None
        envelope = openai_error(status, detail, code=code, param=param)
        return JSONResponse(envelope, status_code=status, headers=headers)
    problem = ErrorBody(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=list(problems),
        request_id=getattr(request.state, "request_id", None),
    )
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith(OPENAI_PREFIX)


def refusal(request: Request, error: NexusmixError) -> JSONResponse:
    """Return the answer to a request that ended with a domain error."""
    code = code_of(type(error))
    if _is_openai(request):
        code = OPENAI_CODES.get(code, code)
    return response(request, status_of(error), error.detail, code=code, problems=error.problems)


def as_invalid_input(error: RequestValidationError | DataError) -> errors.InvalidInput:
    """Return the domain error for input that the framework, or only the database, refused."""
    if isinstance(error, DataError):
        # What no check has seen before. The message quotes values, but no statement.
        log.warning("the database refused a value", error=str(error.orig))
        return errors.InvalidInput("a text or number of the request cannot be stored")
    problems = tuple(Problem(_pointer(item), item["msg"]) for item in error.errors())
    first = problems[0]
    return errors.InvalidInput(f"{first.pointer or 'the body'}: {first.detail}", problems=problems)


def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NexusmixError)
    return refusal(request, error)


def _on_invalid_input(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | DataError)
    return refusal(request, as_invalid_input(error))


def _pointer(item: dict[str, Any]) -> str:
    source, *path = item["loc"]
    if item["type"] == "json_invalid":
        return ""
    return pointer(*path) if source == "body" else pointer(source, *path)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code = STATUS_CODES.get(error.status_code, phrase.lower().replace(" ", "_"))
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response(request, error.status_code, error.detail, code=code, headers=headers)


def _methods(request: Request) -> set[str]:
    """Return the methods of a path. Starlette tells those of the first route with it."""
    matching = (
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    )
    return set().union(*(route.methods or () for route in matching))


def _on_database_down(request: Request, error: Exception) -> Response:
    log.warning("database unavailable", error=str(error))
    return response(request, 503, "the database does not answer; try again", code="unavailable")


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def _on_bug(request: Request, error: Exception) -> Response:
    # The server logs the traceback with the same request id.
    return response(request, 500, "an error in the service; it was logged", code="internal_error")
