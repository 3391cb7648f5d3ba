"""The pages in a browser, on a real database.

Covers: live, mix_pages, mix_views, rendering, sign_in.
"""

import re

import pytest
from playwright.sync_api import Page, expect

from assembler.mixes import job_events, mix_state, mixes, retention
from assembler.mixes.new_mix import NewMix
from assembler.routing.embedder import embedder_digest
from assembler.routing.numpy_encoder import query_encoder
from assembler.tables import MixState, MixVersion
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.catalog import experts as catalog
from registry.database import db
from tests import factories
from tests.assembler import rows

DOMAINS = {
    "cooking": "Boil the potatoes, fry the onions in butter and serve with parsley.",
    "sailing": "Hoist the mainsail, ease the sheet and steer the boat into the wind.",
    "law": "The licensor grants the licensee a non-exclusive right under this agreement.",
}


@pytest.fixture
def experts(store: BlobStore) -> list[str]:
    """Register three experts of a family with a ready projection, and return their names."""
    with db.transaction() as session:
        family = factories.make_family(session, store)
        for position, (name, text) in enumerate(DOMAINS.items(), start=1):
            expert = factories.make_expert(session, family, name=name)
            version = factories.make_version(session, expert, store, tiny_expert=position)
            vector = query_encoder().embed(text)
            factories.embed(session, version, vector, embedder_digest=embedder_digest())
        rows.add_projection(session, store, family)
    return list(DOMAINS)


def request_mix(experts: list[str]) -> MixVersion:
    spec = NewMix(name="mine", family="tiny", experts=experts, finetune={"tokens": 1024})
    with db.transaction() as session:
        return mixes.request(session, blob_stores.store(), spec)


def test_signing_in_leads_back_to_the_page(anonymous_page: Page, key: str) -> None:
    anonymous_page.goto("/mixes")
    anonymous_page.get_by_label("API key").fill(key)
    anonymous_page.get_by_role("button", name="Sign in").click()

    expect(anonymous_page.get_by_role("heading", name="Mixes", exact=True)).to_be_visible()


def test_wrong_key_is_refused(anonymous_page: Page, complaints: list[str]) -> None:
    anonymous_page.goto("/login")
    anonymous_page.get_by_label("API key").fill("nxm_wrong")
    anonymous_page.get_by_role("button", name="Sign in").click()

    expect(anonymous_page.get_by_role("alert")).to_contain_text("This is no API key")
    complaints.clear()  # the browser reports the 401


def test_signing_out_closes_the_pages(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto("/experts")

    expect(page.get_by_label("API key")).to_be_visible()


def test_experts_are_listed(page: Page, experts: list[str]) -> None:
    page.goto("/experts")
    row = page.get_by_role("row").filter(has_text="sailing")

    expect(row).to_contain_text("CC0-1.0")
    expect(row).to_contain_text("ready")
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", name="sailing")).to_be_visible()


def test_a_registration_that_failed_says_why(page: Page, experts: list[str]) -> None:
    with db.transaction() as session:
        version = catalog.find_version(session, expert="sailing", number=1)
        catalog.mark_outdated(session, [version.id])
        catalog.mark_failed(session, version.id, error="the machine is short of memory")
    page.goto("/experts")
    row = page.get_by_role("row").filter(has_text="sailing")

    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("the machine is short of memory")
    row.get_by_role("link").click()
    expect(page.get_by_role("table")).to_contain_text("the machine is short of memory")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("table")).to_contain_text("checked 2 times")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_an_empty_list_says_what_to_do(page: Page) -> None:
    page.goto("/experts")

    expect(page.get_by_text("nexusmix demo")).to_be_visible()


def test_a_pasted_text_selects_the_nearest_experts(page: Page, experts: list[str]) -> None:
    page.goto("/mixes/new")
    page.get_by_label("Text like yours").fill("Simmer the soup with carrots and onions.")
    page.get_by_role("button", name="Suggest experts").click()

    first = page.locator(".choice").first
    expect(first).to_contain_text("cooking")
    expect(first.get_by_role("checkbox")).to_be_checked()


def test_a_mix_is_requested(page: Page, experts: list[str]) -> None:
    page.goto("/mixes/new")
    page.get_by_label("cooking").check()
    page.get_by_label("law").check()
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Request the mix").click()

    expect(page.get_by_role("status")).to_contain_text("queued")
    expect(page.get_by_text("cooking@1")).to_be_visible()


def test_a_wrong_request_is_explained_and_its_input_kept(
    page: Page, experts: list[str], complaints: list[str]
) -> None:
    page.goto("/mixes/new")
    page.get_by_label("cooking").check()
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Request the mix").click()

    expect(page.get_by_role("alert")).to_contain_text("at least 2 experts")
    expect(page.get_by_label("Name")).to_have_value("mine")
    expect(page.get_by_label("cooking")).to_be_checked()
    complaints.clear()  # the browser reports the 422


def test_a_mix_is_followed_live(page: Page, experts: list[str]) -> None:
    version = request_mix(experts)
    page.goto("/mixes/mine@1")
    expect(page.get_by_role("status")).to_contain_text("queued")
    page.evaluate("window.notReloaded = true")

    with db.transaction() as session:
        mix_state.begin(session, version.id, step="assemble")
        mix_state.complete(session, version.id, step="assemble")
        mix_state.begin(session, version.id, step="finetune")
    for step in (1, 2):
        point = {
            "step": step,
            "num_steps": 2,
            "num_tokens": 512 * step,
            "loss": 3.0 / step,
            "expert_shares": [0.5, 0.25, 0.25],
        }
        with db.transaction() as session:
            mix_state.report(session, version.id, progress=point)
            job_events.record(
                session, version.job_id, type="metrics", message="progress", data=point
            )

    expect(page.get_by_text("step: 2 of 2")).to_be_visible()
    expect(page.locator("#chart canvas")).to_be_visible()
    expect(page.locator("#shares-chart canvas")).to_be_visible()
    expect(page.locator("#shares-chart .u-legend")).to_contain_text("sailing")
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.FAILED, error="the disk is full")
    expect(page.get_by_role("alert")).to_contain_text("the disk is full")
    expect(page.locator("#chart canvas")).to_have_count(1)
    assert page.evaluate("window.notReloaded")


def test_a_name_without_a_published_version_leads_to_the_newest(
    page: Page, experts: list[str]
) -> None:
    version = request_mix(experts)
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.FAILED, error="diverges")
    request_mix(experts)
    page.goto("/mixes/mine")

    expect(page).to_have_url(re.compile("/mixes/mine@2$"))
    expect(page.get_by_role("status")).to_contain_text("queued")
    expect(page.get_by_text("No version of mine is published yet.")).to_be_visible()


def test_a_mix_is_cancelled(page: Page, experts: list[str]) -> None:
    request_mix(experts)
    page.goto("/mixes/mine@1")
    page.get_by_role("button", name="Cancel").click()

    expect(page.get_by_role("status")).to_contain_text("cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_parked_mix_is_retried(page: Page, experts: list[str]) -> None:
    version = request_mix(experts)
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.PARKED, error="killed three times")
    page.goto("/mixes/mine@1")
    expect(page.get_by_role("alert")).to_contain_text("killed three times")
    page.get_by_role("button", name="Retry").click()

    expect(page.get_by_role("status")).to_contain_text("queued")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_a_refused_mix_has_no_button_to_retry(page: Page, experts: list[str]) -> None:
    version = request_mix(experts)
    with db.transaction() as session:
        version = mix_state.locked(session, version.id)
        version.kept_until = retention.until()
        mix_state.finish(session, version.id, state=MixState.FAILED, error="diverges")
    page.goto("/mixes/mine@1")
    expect(page.get_by_role("alert")).to_contain_text("diverges")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


@pytest.mark.parametrize(
    "path", ["/experts", "/experts/law", "/mixes", "/mixes/new", "/mixes/mine@1"]
)
def test_pages_fit_a_narrow_screen(page: Page, experts: list[str], path: str) -> None:
    request_mix(experts)
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(path)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_unknown_mix_is_answered_with_a_page(page: Page, complaints: list[str]) -> None:
    page.goto("/mixes/nothing")

    expect(page.get_by_role("alert")).to_contain_text("no mix 'nothing'")
    complaints.clear()  # the browser reports the 404
