"""A real Chromium on pages of this process. Warnings and errors of a page fail its test."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from registry.blobs.blobs import BlobStore
from registry.database import db
from service import keys, sessions
from tests.assembler import rows
from tests.chores.browser import find_browser
from tests.service.ui.speaking_engine import WORDS, SpeakingEngine, add_mix, speaking

# Chromium's sandbox does not work for root. Without a GPU the processor would emulate one. The
# other options turn off its background requests.
ARGUMENTS = [
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# An upper limit: tests go on as soon as the page is ready.
TIMEOUT_MILLISECONDS = 15_000
expect.set_options(timeout=TIMEOUT_MILLISECONDS)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Skip the tests when there is no Chromium, except in CI."""
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
    """Warnings and errors on the console of the page, and uncaught exceptions."""
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
        # Leave the page before the server stops, which would wait for an open stream.
        page.goto("about:blank")
    assert complaints == []


@pytest.fixture
def page(anonymous_page: Page, key: str) -> Page:
    """A page of a visitor who is signed in."""
    with db.transaction() as session:
        link = sessions.create_link(session, keys.find(session, key).id)
    anonymous_page.goto(f"/sign-in?word={link.word}")
    return anonymous_page


@pytest.fixture
def family(store: BlobStore) -> BlobStore:
    """The store with a family of the experts 1 and 2."""
    with db.transaction() as session:
        rows.add_all(session, store)
    return store


@pytest.fixture
def engine(family: BlobStore) -> Iterator[SpeakingEngine]:
    """An engine that says WORDS, as the model `mine`."""
    with speaking(WORDS) as (engine, address):
        add_mix(family, address=address)
        yield engine
