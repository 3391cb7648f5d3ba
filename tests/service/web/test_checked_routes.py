"""Bad texts, numbers and JSON are refused at the edge, wherever they stand in a request.

Covers: service.schemas.common.
"""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from service.web.checked_routes import CheckedRoute

JSON = {"Content-Type": "application/json"}
MIX = {"name": "a", "family": "b", "experts": ["c", "d"]}
BIG = 2**31

PATHS = [
    "/v1/models/%00",
    "/api/v1/experts/a%00b",
    "/api/v1/experts/a%1Bb/versions/1",
    "/experts/%00",
    "/static/%00",
    "/docs/%00",
    "/nowhere/%7F",
]
QUERIES = [
    "/api/v1/experts?q=%00",
    "/api/v1/experts?family=%0A",
    "/api/v1/experts?%00=1",
    "/mixes/new?experts=%00",
    "/mixes/choices?family=%00",
    "/mixes/preset?preset=%00",
    "/playground?model=%00",
    "/login?next=/%00",
    "/api/v1/experts?" + "&".join(["a=1"] * 1001),
]
NUMBERS = [
    f"/api/v1/deployments/{BIG}",
    "/api/v1/deployments/0",
    f"/api/v1/deployments?after={BIG}",
    f"/api/v1/mixes?after={'9' * 5000}",
    f"/api/v1/experts/a/versions/{BIG}",
    f"/api/v1/experts/a/versions/{BIG}/files",
    f"/api/v1/mixes/a/versions/{BIG}/files/config.json",
    f"/api/v1/mixes/a/versions/{BIG}",
    f"/api/v1/mixes/a/versions/{'9' * 400}/events",
    f"/api/v1/families/a/projections/{BIG}",
    f"/mixes/a@{BIG}0",
]
BODIES = [
    b'{"artifact": 1, "model": "a\\u0000b"}',
    b'{"artifact": 1, "model": "\\ud83d"}',
    b'{"artifact": 1, "model": "a", "\\u0001": 1}',
    b'{"artifact": 2147483648, "model": "a"}',
    b'{"artifact": 1e999, "model": "a"}',
    b'{"artifact": NaN, "model": "a"}',
    b'{"artifact": 1, "artifact": 2, "model": "a"}',
    b'\xef\xbb\xbf{"artifact": 1, "model": "a"}',
    b'{"artifact": 1, "model": "a"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff",
]


@pytest.fixture
def page(anonymous: TestClient, key: str) -> TestClient:
    return signed_in(anonymous, key)


def signed_in(client: TestClient, key: str) -> TestClient:
    """Let a client send the session of a browser on our own pages."""
    client.headers["Origin"] = "http://127.0.0.1"
    assert client.post("/login", data={"key": key}, follow_redirects=False).status_code == 303
    return client


def test_every_route_is_checked(app: FastAPI) -> None:
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert [route.path for route in routes if not isinstance(route, CheckedRoute)] == []


@pytest.mark.parametrize("target", PATHS + QUERIES + NUMBERS)
def test_bad_paths_and_queries_are_refused(client: TestClient, key: str, target: str) -> None:
    assert signed_in(client, key).get(target).status_code == (
        400 if target.startswith("/v1") else 422
    )


@pytest.mark.parametrize("body", BODIES)
def test_bad_bodies_are_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/v1/deployments", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    "body",
    [
        *BODIES[:2],
        *BODIES[4:],
        b'{"model": "a\\u001bb"}',
        b'{"model": "a\\nb"}',
        b'{"model": "a", "stop": "\\u0000"}',
    ],
)
def test_bad_bodies_do_not_reach_an_engine(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")


@pytest.mark.parametrize("part", ["finetune", "compress", "gates"])
@pytest.mark.parametrize(
    "value", [b"1e999", b"-Infinity", b'"\\u0000"', b"18446744073709551616", b'"1e999"']
)
def test_bad_values_of_a_recipe_are_problems(client: TestClient, part: str, value: bytes) -> None:
    field = {"finetune": "z_loss_weight", "compress": "min_fdt_75", "gates": "prefix_tokens"}[part]
    body = b'{"name":"a","family":"b","experts":["c","d"],"%s":{"%s":%s}}'
    content = body % (part.encode(), field.encode(), value)
    for path in ("/api/v1/mixes", "/api/v1/mixes:plan"):
        answer = client.post(path, content=content, headers=JSON)
        if path.endswith(":plan") and answer.status_code == 200:
            pointers = {problem["pointer"] for problem in answer.json()["problems"]}
            assert any(pointer.startswith(f"/{part}") for pointer in pointers)
        else:
            assert answer.status_code == 422


@pytest.mark.parametrize(
    ("change", "at"), [({"name": "\ud83d"}, "/name"), ({"experts": ["\0", "d"]}, "/experts/0")]
)
def test_a_refusal_points_to_the_value(client: TestClient, change: dict[str, Any], at: str) -> None:
    answer = client.post("/api/v1/mixes", content=json.dumps(MIX | change), headers=JSON)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [at]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/mixes", {"name": "a\0b"}),
        ("/mixes/plan", {"fields": "finetune.tokens=1e999", "experts": ["c", "d"]}),
        ("/mixes/plan", {"fields": "seed=" + "[" * 100_000}),
        ("/mixes/plan", {"tokens": "9" * 5000, "experts": ["c", "d"]}),
        ("/mixes/suggest", {"family": "a", "text": "\x1b[31m"}),
        ("/mixes/suggest", {"family": "a" * 300, "text": "law"}),
        ("/mixes/a/revise", {"joining": "\x7f"}),
        ("/mixes/a/override", {"scope": ["\0"], "reason": "r"}),
        ("/login", {"key": "\0"}),
    ],
)
def test_bad_forms_are_refused_on_a_page(
    page: TestClient, path: str, fields: dict[str, Any]
) -> None:
    answer = page.post(path, data=fields)
    assert 400 <= answer.status_code < 500 or (answer.status_code == 200 and path == "/mixes/plan")
    assert answer.headers["content-type"].startswith("text/html")


def test_a_file_in_a_form_is_refused(page: TestClient) -> None:
    answer = page.post("/mixes", files={"name": ("a.txt", b"a")})
    assert answer.status_code == 422
    assert "no form takes one" in answer.text


@pytest.mark.parametrize("name", ["Last-Event-ID", "Idempotency-Key", "X-Request-Id"])
def test_control_characters_in_headers_are_refused(client: TestClient, name: str) -> None:
    answer = client.get("/api/v1/experts", headers={name: "a\x01b"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (
        422,
        f"/header/{name.lower()}",
    )
