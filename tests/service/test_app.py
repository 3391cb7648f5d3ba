"""The app as a whole: its OpenAPI document and its start.

Covers: service.web.changes.
"""

import pytest
from starlette.testclient import TestClient

from service.app import create_app


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
