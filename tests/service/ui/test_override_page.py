"""Publishing a refused mix from its page."""

import pytest
from playwright.sync_api import Page, expect

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from engine.gates.report import Failure
from registry.blobs.blobs import BlobStore, put_bytes
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import assemble
from tests.service.gate_reports import make_report

FAILURES = (
    Failure(domain="expert-1", metric="served.fdt_75", value=3, limit="at least", threshold=24),
    Failure(
        domain="expert-2", metric="served.dppl_ratio", value=2, limit="at most", threshold=1.01
    ),
)


@pytest.fixture(autouse=True)
def refused(store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        request = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, request)
        assemble(session, store, version)
        report = make_report(assembled=(30, 40), finetuned=None, domains=("expert-1", "expert-2"))
        failed = report.model_copy(update={"passed": False, "failures": FAILURES})
        version.gate_report_digest = put_bytes(store, failed.model_dump_json().encode())
        error = "; ".join(map(str, FAILURES))
        mix_state.finish(session, version.id, state=MixState.FAILED, error=error)


def test_every_missed_limit_must_be_waived(page: Page, complaints: list[str]) -> None:
    page.goto("/mixes/mine@1")
    page.get_by_text("Publish it against its gate").click()
    page.get_by_label(str(FAILURES[0])).check()
    page.get_by_label("Reason").fill("a trial")
    page.get_by_role("button", name="Publish against its gate").click()
    expect(page.get_by_role("alert").first).to_contain_text("leaves out expert-2:served.dppl_ratio")
    complaints.clear()  # the browser reports the 422

    page.get_by_text("Publish it against its gate").click()
    for failure in FAILURES:
        page.get_by_label(str(failure)).check()
    page.get_by_label("Reason").fill("a trial")
    page.get_by_role("button", name="Publish against its gate").click()
    expect(page.get_by_role("status")).to_contain_text("succeeded")
    expect(page.locator("#override")).to_contain_text("a trial")
    expect(page.get_by_text("Publish it against its gate")).to_have_count(0)
