"""Errors as HTTP: problem+json (RFC 9457) on our own paths, OpenAI's envelope below /v1.

A domain error gets its status from one table; a caller of one dialect never sees the other.
"""

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from registry import errors
from registry.errors import NexusmixError, Problem, pointer
from service.error_codes import code_of

OPENAI_PREFIX = "/v1/"
RETRY_AFTER_SECONDS = 2

# The nearest entry along a class's ancestors counts.
STATUSES: dict[type[NexusmixError], int] = {
    errors.InvalidInput: 422,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Unauthenticated: 401,
    errors.GateFailed: 409,
    errors.StepFailed: 500,
    errors.OutOfSpace: 507,
    errors.Unavailable: 503,
    NexusmixError: 500,
}


# For errors of the framework, which know a status only; the first entry of a status counts.
STATUS_CODES = {status: code_of(kind) for kind, status in reversed(STATUSES.items())}

# Codes that programs written for OpenAI know.
OPENAI_CODES = {"not_found": "model_not_found", "unauthenticated": "invalid_api_key"}

log = structlog.stdlib.get_logger(__name__)


def install(app: FastAPI) -> None:
    app.add_exception_handler(NexusmixError, _on_domain_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(OperationalError, _on_database_down)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def status_of(error: NexusmixError) -> int:
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def openai_error(
    status: int, message: str, *, code: str | None, param: str | None = None
) -> dict[str, Any]:
    """OpenAI's envelope, all four keys always there."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
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
    """The error body in the dialect of the request's path."""
    headers = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if _is_openai(request):
        # OpenAI's clients know 400 for what is wrong in a body.
        status = 400 if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
        param = problems[0].pointer.lstrip("/") if problems else None
        envelope = openai_error(status, detail, code=code, param=param)
        return JSONResponse(envelope, status_code=status, headers=headers)
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        "errors": [{"pointer": p.pointer, "detail": p.detail} for p in problems],
        "request_id": getattr(request.state, "request_id", None),
    }
    return JSONResponse(
        problem, status_code=status, headers=headers, media_type="application/problem+json"
    )


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith(OPENAI_PREFIX)


def _on_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, NexusmixError)
    code = code_of(type(error))
    if _is_openai(request):
        code = OPENAI_CODES.get(code, code)
    return response(request, status_of(error), error.detail, code=code, problems=error.problems)


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = tuple(Problem(_pointer(item), item["msg"]) for item in error.errors())
    first = problems[0]
    detail = f"{first.pointer or 'the body'}: {first.detail}"
    return response(request, 422, detail, code="invalid_input", problems=problems)


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
    return response(request, error.status_code, error.detail, code=code, headers=headers)


def _on_database_down(request: Request, error: Exception) -> Response:
    log.warning("database unavailable", error=str(error))
    return response(request, 503, "the database does not answer; try again", code="unavailable")


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


def _on_bug(request: Request, error: Exception) -> Response:
    # The traceback is logged by the server, beside the same request id.
    return response(request, 500, "an error on our side; it was logged", code="internal_error")
