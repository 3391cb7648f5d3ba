"""Every error is answered in the dialect of its path.

Covers: error_codes, service.schemas.errors.
"""

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DataError, OperationalError
from starlette.testclient import TestClient

from registry import errors
from registry.errors import NexusmixError, Problem
from service.error_codes import code_of
from service.errors import install, status_of

PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code", "errors", "request_id"}

CASES: dict[str, Exception] = {
    "invalid": errors.InvalidCheckpoint("bad", problems=(Problem("/digests/a~1b", "is missing"),)),
    "missing": errors.NotFound("gone"),
    "full": errors.OutOfSpace("no room"),
    "away": errors.Unavailable("starting"),
    "database": OperationalError("SELECT secret", {}, Exception("gone")),
    "value": DataError("SELECT secret", {}, Exception("out of range")),
    "bug": RuntimeError("password"),
}


@pytest.fixture
def failing() -> TestClient:
    app = FastAPI()
    install(app)

    def fail(case: str) -> None:
        raise CASES[case]

    app.add_api_route("/api/v1/{case}", fail)
    app.add_api_route("/v1/{case}", fail)
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("case", "status", "code"),
    [
        ("invalid", 422, "invalid_checkpoint"),
        ("missing", 404, "not_found"),
        ("full", 507, "out_of_space"),
        ("away", 503, "unavailable"),
        ("database", 503, "unavailable"),
        ("value", 422, "invalid_input"),
        ("bug", 500, "internal_error"),
    ],
)
def test_errors_of_the_api_are_problem_details(
    failing: TestClient, case: str, status: int, code: str
) -> None:
    answer = failing.get(f"/api/v1/{case}")
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == PROBLEM_FIELDS
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert problem["instance"] == f"/api/v1/{case}"
    assert "secret" not in answer.text
    assert "password" not in answer.text


def test_problems_point_into_the_body(failing: TestClient) -> None:
    problem = failing.get("/api/v1/invalid").json()
    assert problem["errors"] == [{"pointer": "/digests/a~1b", "detail": "is missing"}]


@pytest.mark.parametrize(
    ("case", "status", "kind", "code"),
    [
        ("invalid", 400, "invalid_request_error", "invalid_checkpoint"),
        ("missing", 404, "invalid_request_error", "model_not_found"),
        ("away", 503, "server_error", "unavailable"),
        ("bug", 500, "server_error", "internal_error"),
    ],
)
def test_errors_of_the_gateway_have_openais_envelope(
    failing: TestClient, case: str, status: int, kind: str, code: str
) -> None:
    answer = failing.get(f"/v1/{case}")
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)


def test_an_unavailable_service_sends_retry_after(failing: TestClient) -> None:
    assert failing.get("/v1/away").headers["retry-after"] == "2"


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    assert client.get("/api/v1/nothing").json()["code"] == "not_found"
    assert client.delete("/api/v1/experts").json()["code"] == "method_not_allowed"
    assert set(client.get("/v1/nothing").json()["error"]) == {"message", "type", "param", "code"}


def test_every_error_of_the_tree_has_a_status_and_a_code() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, NexusmixError)
    ]
    assert all(400 <= status_of(kind("x")) < 600 for kind in kinds)
    assert len({code_of(kind) for kind in kinds}) == len(kinds)
