"""The page of a compressed mix: the request, and every size with its divergence."""

from playwright.sync_api import Page, expect

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from registry.blobs.blobs import BlobStore, put_bytes
from registry.database import db
from tests.assembler import rows
from tests.service.gate_reports import make_curve


def test_sizes_are_shown_and_the_chosen_one_is_marked(page: Page, store: BlobStore) -> None:
    curve = make_curve()
    wanted = curve.request.model_dump() | {"max_bytes": 50_000_000}
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(
            name="small", family="tiny", experts=["expert-1", "expert-2"], compress=wanted
        )
        version = mixes.request(session, store, spec)
        version.curve_digest = put_bytes(store, curve.model_dump_json().encode())
    page.goto("/mixes/small@1")
    expect(page.get_by_text("int8 for cpu, at most 50 MB")).to_be_visible()
    lines = page.locator("#compression tbody tr")
    expect(lines).to_have_count(3)
    taken = page.locator("#compression tr[aria-current]")
    expect(taken).to_have_count(1)
    expect(taken).to_contain_text("900 kB")
    expect(taken).to_contain_text("90 %")
