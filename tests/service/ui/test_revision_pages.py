"""The page of a finished mix, and the changes that it offers.

Covers: revision_views.
"""

import json
from collections.abc import Sequence

import pytest
from playwright.sync_api import Page, expect

from assembler.mixes import mixes
from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import MixSpec, NewMix
from engine.serving import deployments
from engine.serving.tables import DeploymentState
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import artifacts
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.gate_reports import make_report


@pytest.fixture(autouse=True)
def mine(store: BlobStore) -> None:
    """Publish `mine@2` of the experts 1 to 3, made from `mine@1` of 1 and 2; register expert 4."""
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=4)
    spec = NewMix(
        name="mine",
        family="tiny",
        experts=["expert-1", "expert-2"],
        assembly={"experts_per_token": 2},
        finetune={"tokens": 1024},
    )
    make(store, spec, values=(30, 40))
    extension = MixChange(base="mine", joining="expert-3", finetune={"tokens": 0})
    make(store, extension, values=(33, 40, 28), base=(30, 40, 90))


def make(
    store: BlobStore, spec: MixSpec, *, values: Sequence[float], base: Sequence[float] | None = None
) -> None:
    """Finish a mix as its job would, with a provenance and a gate report of these perplexities."""
    with db.transaction() as session:
        version = publish(session, store, mixes.request(session, store, spec))
        domains = [ref.partition("@")[0] for ref in version.recipe["experts"]]
        report = make_report(
            assembled=tuple(values),
            finetuned=None,
            base=None if base is None else tuple(base),
            domains=domains,
            # The added expert comes last.
            known=() if base is None else domains[:-1],
        )
        version.gate_report_digest = put_bytes(store, report.model_dump_json().encode())
        assert version.artifact_id is not None
        artifact = artifacts.get(session, version.artifact_id)
        artifact.provenance_digest = put_bytes(store, b'{"schema_version": 1}')


def test_the_page_shows_base_and_changed_fields(page: Page) -> None:
    page.goto("/mixes/mine")
    expect(page.locator("#chain")).to_have_text("mine@1")
    expect(page.locator("#changed")).to_contain_text("experts_per_token=2")
    expect(page.locator("#changed")).to_contain_text("finetune.tokens=0")
    with page.expect_download() as download:
        page.get_by_role("link", name="mine@2.provenance.json").click()
    assert json.loads(download.value.path().read_text()) == {"schema_version": 1}
    page.locator("#chain").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("version 1")
    expect(page.locator("#chain")).to_have_count(0)


def test_a_published_mix_is_deployed(page: Page) -> None:
    page.goto("/mixes/mine@2")
    page.get_by_role("button", name="Deploy").click()
    expect(page.get_by_role("status").first).to_contain_text("served: requested")
    expect(page.get_by_role("button", name="Deploy")).to_have_count(0)
    with db.transaction() as session:
        row = deployments.find_by_model(session, "mine")
        assert row.ref == "mine@2"
        # The page follows it until it answers.
        row.state = DeploymentState.READY
    expect(page.get_by_role("link", name="Chat")).to_be_visible()


def test_the_files_of_a_mix_are_downloaded(page: Page) -> None:
    page.goto("/mixes/mine")
    page.get_by_role("link", name="Export").click()
    expect(page.locator("#export")).to_contain_text("nexusmix export mine@2 FOLDER --format stock")
    page.locator("#export summary").click()
    with page.expect_download() as download:
        page.locator("#export").get_by_role("link", name="config.json", exact=True).click()
    names = json.loads(download.value.path().read_text())["expert_names"]
    assert names == ["expert-1", "expert-2", "expert-3"]


def test_the_base_is_compared(page: Page) -> None:
    page.goto("/mixes/mine")
    table = page.locator("#perplexity")
    expect(table).to_contain_text("version before")
    domains = table.locator("tbody tr")
    expect(domains.filter(has_text="expert-1")).to_contain_text("+10.0 %")
    expect(domains.filter(has_text="expert-3")).to_contain_text("new")


def test_an_extension_is_planned_and_requested(page: Page) -> None:
    page.goto("/mixes/mine")
    page.get_by_text("Add an expert").click()
    page.get_by_label("Expert to add").select_option("expert-4@1")
    form = page.locator("#extend")
    form.get_by_label("Finetune, in tokens").fill("0")
    form.get_by_role("button", name="Plan it first").click()
    expect(page.locator("#extend-planned table")).to_contain_text("assemble")
    form.get_by_role("button", name="Extend").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("version 3")
    expect(page.get_by_role("status").first).to_contain_text("queued")
    expect(page.locator("#chain")).to_have_text("mine@2 from mine@1")


def test_problems_of_a_change_are_shown(page: Page, complaints: list[str]) -> None:
    page.goto("/mixes/mine")
    page.get_by_text("Replace an expert").click()
    form = page.locator("#replace")
    form.get_by_label("Expert to remove").select_option("expert-1@1")
    form.get_by_label("Expert to put in its place").select_option("expert-4@1")
    form.get_by_label("Other fields").fill("finetune.new_share=7\ncombine=sum")
    form.get_by_role("button", name="Plan it first").click()
    planned = page.locator("#replace-planned")
    for words in ("less than or equal to 1", "/finetune/new_share", "/combine"):
        expect(planned).to_contain_text(words)
    form.get_by_role("button", name="Replace").click()
    expect(page.get_by_role("alert")).to_contain_text("less than or equal to 1")
    expect(page.get_by_role("alert")).to_contain_text("/combine")
    expect(form.get_by_label("Expert to remove")).to_have_value("expert-1@1")
    complaints.clear()  # the browser reports the 422


def test_an_expert_is_removed(page: Page) -> None:
    page.goto("/mixes/mine")
    page.get_by_text("Remove an expert").click()
    page.locator("#remove").get_by_label("Expert to remove").select_option("expert-2@1")
    page.locator("#remove").get_by_role("button", name="Remove").click()
    expect(page.locator("#chain")).to_contain_text("mine@2")
    expect(page.get_by_text("expert-2@1")).to_have_count(0)


def test_a_mix_of_two_experts_cannot_shrink(page: Page) -> None:
    page.goto("/mixes/mine@1")
    page.get_by_text("Remove an expert").click()
    expect(page.get_by_text("none can be removed")).to_be_visible()
    expect(page.locator("#remove")).to_have_count(0)


def test_a_merge_cannot_be_changed(page: Page, store: BlobStore) -> None:
    spec = NewMix(name="mean", family="tiny", experts=["expert-1", "expert-2"], preset="merge")
    make(store, spec, values=(50, 50))
    page.goto("/mixes/mean")
    expect(page.get_by_role("heading", name="Recipe")).to_be_visible()
    expect(page.get_by_text("Change this mix")).to_have_count(0)


def test_a_changed_mix_fits_a_narrow_screen(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto("/mixes/mine")
    page.get_by_text("Add an expert").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_engine_is_deployed_with_options(page: Page, complaints: list[str]) -> None:
    page.goto("/mixes/mine@2")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Context, in tokens").fill("4096")
    page.get_by_label("More arguments of vLLM").fill("max_num_seqs=0")
    page.get_by_role("button", name="Deploy with these options").click()

    problems = page.get_by_role("alert")
    expect(problems).to_contain_text("is 4096, the model has a context of 256")
    expect(problems).to_contain_text("/options/engine_args/max_num_seqs is 0")
    complaints.clear()  # the browser reports the 422
    # What was typed is still there.
    expect(page.get_by_label("Context, in tokens")).to_have_value("4096")

    page.get_by_label("Context, in tokens").fill("128")
    page.get_by_label("More arguments of vLLM").fill("max_num_seqs=4")
    page.get_by_role("button", name="Deploy with these options").click()

    expect(page.locator("#running-with")).to_contain_text("context=128")
    with db.transaction() as session:
        served = deployments.find_by_model(session, "mine")
    assert served.options == {"context": 128, "engine_args": {"max_num_seqs": 4}}
