"""The plan beside the form of a mix.

Covers: preset_views.
"""

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from registry.blobs.blobs import BlobStore
from registry.database import db
from tests.assembler import rows

FORM = {"family": "tiny", "tokens": "0", "name": "mine", "experts": ["expert-1", "expert-2"]}


@pytest.fixture(autouse=True)
def experts(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)


def test_a_plan_shows_steps_and_license(client: TestClient) -> None:
    answer = client.post("/mixes/plan", data=FORM)
    assert answer.status_code == 200, answer.text
    for words in ("assemble", "gate", "License: Apache-2.0", "parameters"):
        assert words in answer.text
    assert '<th scope="row">finetune</th>' not in answer.text
    assert "cannot be made" not in answer.text


def test_a_plan_shows_every_problem(client: TestClient) -> None:
    wrong = FORM | {"name": "No Name", "tokens": "-1", "experts": ["expert-1"]}
    text = client.post("/mixes/plan", data=wrong).text
    for pointer in ("/name", "/finetune/tokens", "/experts"):
        assert f">{pointer}</span>" in text


def test_the_button_shows_the_plan(page: Page) -> None:
    page.goto("/mixes/new?experts=expert-1&experts=expert-2")
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_role("button", name="Plan it first").click()
    expect(page.locator("#planned table")).to_contain_text("assemble")
    expect(page.locator("#planned")).to_contain_text("License: Apache-2.0")


def test_a_preset_says_what_it_is_for(page: Page) -> None:
    page.goto("/mixes/new")
    about = page.locator("#preset-about")
    expect(about).to_contain_text("chosen by the family projection")
    page.get_by_label("Preset").select_option("bam")
    expect(about).to_contain_text("Branch-Attend-Mix")
    expect(about).to_contain_text("attention=experts")


def test_problems_are_shown_in_the_plan_and_after_the_request(
    page: Page, complaints: list[str]
) -> None:
    page.goto("/mixes/new?experts=expert-1")
    page.get_by_label("Name", exact=True).fill("mine")
    page.locator("summary").click()
    page.get_by_label("Other fields of the recipe").fill("combine=product\ncolor=red")
    page.get_by_label("Preset").select_option("btx")
    page.get_by_role("button", name="Plan it first").click()
    pointers = ("/combine", "/color", "/experts")
    for pointer in pointers:
        expect(page.locator("#planned").get_by_text(pointer, exact=True)).to_be_visible()
    page.get_by_role("button", name="Request the mix").click()
    for pointer in pointers:
        expect(page.get_by_role("alert").get_by_text(pointer, exact=True)).to_be_visible()
    expect(page.get_by_label("Preset")).to_have_value("btx")
    expect(page.get_by_label("Other fields of the recipe")).to_have_value(
        "combine=product\ncolor=red"
    )
    complaints.clear()  # the browser reports the 422


def test_a_mix_is_requested_with_a_preset_and_changed_fields(page: Page) -> None:
    page.goto("/mixes/new?experts=expert-1&experts=expert-2")
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_label("Preset").select_option("btx")
    page.locator("summary").click()
    page.get_by_label("Other fields of the recipe").fill("experts_per_token=3")
    page.get_by_role("button", name="Request the mix").click()
    expect(page.get_by_role("status")).to_contain_text("queued")
    expect(page.locator("#changed")).to_have_text("experts_per_token=3")
