"""Lists on pages lead to their end.

Covers: pages, mix_pages.
"""

import re

import pytest
from starlette.testclient import TestClient

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from registry.blobs.blobs import BlobStore
from registry.database import db
from service.ui import mix_pages, pages
from tests import factories
from tests.assembler import rows


def walk(client: TestClient, path: str) -> list[str]:
    """Follow the links to the next page, and return the HTML of every page."""
    found: list[str] = []
    while path:
        found.append(client.get(path).text)
        following = re.search(r'href="([^"]+)">Next page', found[-1])
        path = following[1] if following else ""
    return found


def test_experts_lead_to_the_last(
    client: TestClient, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "MAX_ROWS", 2)
    with db.transaction() as session:
        family = factories.make_family(session, store)
        for number in range(5):
            factories.make_expert(session, family, name=f"expert-{number}")
    found = walk(client, "/experts")

    assert len(found) == 3
    for number in range(5):
        assert sum(f'"/experts/expert-{number}"' in html for html in found) == 1
    assert "First page" not in found[0]
    assert "First page" in found[2]


def test_mixes_lead_to_the_first_that_was_made(
    client: TestClient, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix_pages, "MAX_ROWS", 2)
    with db.transaction() as session:
        rows.add_all(session, store)
        for number in range(3):
            spec = NewMix(name=f"mix-{number}", family="tiny", experts=["expert-1", "expert-2"])
            mixes.request(session, store, spec)
    found = walk(client, "/mixes")

    assert len(found) == 2
    assert "mix-2@1" in found[0]
    assert "mix-0@1" in found[1]


def test_every_expert_of_a_family_can_be_chosen(client: TestClient, store: BlobStore) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        for number in range(mix_pages.MAX_ROWS + 5):
            expert = factories.make_expert(session, family, name=f"expert-{number}")
            factories.make_version(session, expert, store)
    html = client.get("/mixes/new").text

    assert html.count('name="experts"') == mix_pages.MAX_ROWS + 5
