"""A real Chromium on pages that this process serves; a page that complains fails its test."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.chores.browser import find_browser

# Chromium's sandbox does not work for root; without a GPU one would be played by the processor;
# the others keep it from asking for news.
ARGUMENTS = [
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Generous: it is waited for, not slept.
TIMEOUT_MILLISECONDS = 15_000
expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Where there is no Chromium the tests are skipped, except in CI."""
    with sync_playwright() as playwright:
        program = find_browser() or playwright.chromium.executable_path
        if not os.path.exists(program):
            message = f"no Chromium: neither in the system nor at {program}"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the page wrote to its console as a warning or error, and what it threw."""
    return []


@pytest.fixture
def anonymous_page(browser: Browser, address: str, complaints: list[str]) -> Iterator[Page]:
    with browser.new_context(base_url=address) as context:
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MILLISECONDS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: (
                complaints.append(line.text) if line.type in ("warning", "error") else None
            ),
        )
        yield page
        # Left before the server goes: an open stream would keep it waiting.
        page.goto("about:blank")
    assert complaints == []


@pytest.fixture
def page(anonymous_page: Page, key: str) -> Page:
    """Signed in."""
    anonymous_page.goto(f"/login?key={key}")
    return anonymous_page
