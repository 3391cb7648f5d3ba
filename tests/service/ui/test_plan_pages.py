"""The plan beside the form of a mix."""

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from registry import db
from registry.blobs import BlobStore
from tests.assembler import rows

FORM = {"family": "tiny", "tokens": "0", "name": "mine", "experts": ["expert-1", "expert-2"]}


@pytest.fixture(autouse=True)
def experts(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)


def test_steps_and_licence_of_what_can_be_made(client: TestClient) -> None:
    answer = client.post("/mixes/plan", data=FORM)
    assert answer.status_code == 200, answer.text
    for words in ("assemble", "gate", "Licence: Apache-2.0", "parameters"):
        assert words in answer.text
    assert "finetune" not in answer.text
    assert "cannot be made" not in answer.text


def test_everything_that_is_wrong(client: TestClient) -> None:
    wrong = FORM | {"name": "No Name", "tokens": "-1", "experts": ["expert-1"]}
    text = client.post("/mixes/plan", data=wrong).text
    for pointer in ("/name", "/finetune/tokens", "/experts"):
        assert f">{pointer}</span>" in text


def test_a_button_shows_it(page: Page) -> None:
    page.goto("/mixes/new?experts=expert-1&experts=expert-2")
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_role("button", name="Plan it first").click()
    expect(page.locator("#planned table")).to_contain_text("assemble")
    expect(page.locator("#planned")).to_contain_text("Licence: Apache-2.0")
