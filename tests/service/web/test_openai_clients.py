"""Browsers of other sites, HEAD requests and proxies at the OpenAI-compatible routes."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient

from registry.settings import settings
from service.web.openai_clients import OpenAiClients

SITE = "https://chat.example"


def app_behind() -> FastAPI:
    """Return an app with a stream, behind the middleware with the settings of now."""
    app = FastAPI()

    @app.get("/v1/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter(["data: 1\n\n"]), media_type="text/event-stream")

    @app.get("/other")
    def other() -> str:
        return "text"

    app.add_middleware(OpenAiClients)
    return app


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A client of an app that other sites may ask."""
    monkeypatch.setenv("NEXUSMIX_CORS_ORIGINS", f"{SITE} https://second.example:8443")
    settings.cache_clear()
    with TestClient(app_behind()) as client:
        yield client


def preflight(client: TestClient, path: str, *, origin: str = SITE) -> dict[str, str]:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-stainless-lang",
    }
    return dict(client.options(path, headers=asked).headers)


def test_a_site_of_the_settings_may_ask(allowed: TestClient) -> None:
    headers = preflight(allowed, "/v1/stream")
    assert headers["access-control-allow-origin"] == SITE
    assert "x-stainless-lang" in headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in headers
    answer = allowed.get("/v1/stream", headers={"Origin": SITE})
    assert answer.headers["access-control-allow-origin"] == SITE


def test_other_sites_may_not_ask(allowed: TestClient) -> None:
    headers = preflight(allowed, "/v1/stream", origin="https://evil.example")
    assert "access-control-allow-origin" not in headers


def test_other_routes_are_for_no_site(allowed: TestClient) -> None:
    assert "access-control-allow-origin" not in preflight(allowed, "/other")


def test_without_the_setting_no_site_may_ask() -> None:
    with TestClient(app_behind()) as client:
        assert "access-control-allow-origin" not in preflight(client, "/v1/stream")


def test_proxies_pass_streams_on_at_once() -> None:
    with TestClient(app_behind()) as client:
        answer = client.get("/v1/stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-cache, no-transform"
        assert "x-accel-buffering" not in client.get("/other").headers


def test_head_is_answered_without_a_body(client: TestClient) -> None:
    answer = client.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(client.get("/v1/models").content)
