"""The documentation is served as it was built, and needs nothing from another server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from service.ui.docs_site import DocsSite
from service.web.middleware import Observe
from tests.chores.documentation import COMMAND
from tests.service.conftest import serving


def app_with(folder: Path) -> FastAPI:
    app = FastAPI(docs_url=None)
    app.add_middleware(Observe)
    app.mount("/docs", DocsSite(folder))
    return app


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole documentation. `./nexusmix test` builds it strictly as a check of its own."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [*COMMAND, "--no-strict", "--site-dir", folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def docs_address(built: Path) -> Iterator[str]:
    with serving(app_with(built)) as address:
        yield address


def test_a_site_that_is_not_built_says_how(tmp_path: Path) -> None:
    answer = TestClient(app_with(tmp_path)).get("/docs/")
    assert answer.status_code == 404
    assert "./nexusmix docs" in answer.text


def test_pages_may_load_their_own_files_only(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>Home</p>")
    answer = TestClient(app_with(tmp_path)).get("/docs")
    assert answer.text == "<p>Home</p>"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "http" not in policy


def test_the_page_of_an_unknown_address_has_the_same_policy(tmp_path: Path) -> None:
    for name in ("index", "404"):
        (tmp_path / f"{name}.html").write_text("<p>Page</p>")
    client = TestClient(app_with(tmp_path))
    home, missing = client.get("/docs/"), client.get("/docs/nowhere/at/all")
    assert missing.status_code == 404
    assert missing.headers["content-security-policy"] == home.headers["content-security-policy"]


def test_the_service_has_the_documentation_and_links_to_it(anonymous: TestClient) -> None:
    assert '<a href="/docs/">Docs</a>' in anonymous.get("/login").text
    assert anonymous.get("/docs/").headers["content-type"].startswith("text/html")


@pytest.mark.slow
def test_a_word_is_found_without_leaving_the_service(browser: Browser, docs_address: str) -> None:
    complaints: list[str] = []
    addresses: list[str] = []
    with browser.new_context(base_url=docs_address) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: complaints.append(line.text) if line.type == "error" else None,
        )
        page.on("request", lambda request: addresses.append(request.url))
        page.goto("/docs/reference/settings/")
        # The page searches at the end of a key press: text that is filled in at once after the
        # index is ready is never looked for.
        search = page.get_by_role("textbox", name="Search")
        search.press_sequentially("NEXUSMIX_CANDIDATE_DAYS")
        expect(page.locator(".md-search-result__item").first).to_contain_text("Settings")
        page.goto("about:blank")
    assert complaints == []
    origins = {urlsplit(address).netloc for address in addresses if address.startswith("http")}
    assert origins == {urlsplit(docs_address).netloc}
