"""The app as a whole: its OpenAPI document, its start, and which routes need a key.

Covers: service.web.changes.
"""

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from service.app import create_app


def calls(dependant: Dependant) -> set[str]:
    """Return the names of all functions that a route depends on, at any depth."""
    names = {getattr(dependant.call, "__name__", "")}
    return names.union(*map(calls, dependant.dependencies))


def test_the_api_documents_itself(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert "/api/v1/mixes/{name}/versions/{number}/events" in document["paths"]
    assert "/v1/chat/completions" in document["paths"]
    request = document["components"]["schemas"]["MixRequest"]["properties"]
    # Checked later with the rest of the request, but documented here.
    assert request["combine"]["enum"] == ["convex", "sum"]
    assert request["finetune"]["properties"]["tokens"]["minimum"] == 0
    served = request["gates"]["properties"]["served"]
    assert served["properties"]["min_fdt_75"]["default"] == 24


def test_it_starts_before_its_database(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://postgres@/nexusmix?host=/nowhere"
    monkeypatch.setenv("NEXUSMIX_DATABASE_URL", url)
    with TestClient(create_app(), base_url="http://127.0.0.1") as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "retry-after" in answer.headers
    assert "nowhere" not in answer.text


def test_every_route_that_changes_something_needs_a_key() -> None:
    """A new route that forgets `Writer` fails here. Suggestions and plans only read."""
    open_paths = {"/api/v1/experts:suggest", "/login", "/logout"}
    forgotten = []
    for route in create_app().routes:
        if isinstance(route, APIRoute) and route.methods - {"GET", "HEAD"}:
            asks = calls(route.dependant) & {"authenticate", "authenticate_application", "visitor"}
            only_reads = route.path in open_paths or route.path.endswith(":plan")
            if not asks and not only_reads:
                forgotten.append(route.path)
    assert forgotten == []
