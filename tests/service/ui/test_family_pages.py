"""Families are listed on a page, and a seed is registered from the browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from assembler.routing.embedder import states_embedder_digest
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import families, projections
from registry.catalog.documents import Document, group_by_domain, parse, serialize
from registry.checkpoints import manifests
from registry.database import db
from registry.database.tables import VersionState
from tests import factories, tiny

HOSTILE = "<b>[/nope]</b> [words]"


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    folder = tiny.write_checkpoint(tmp_path / "seed")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "other.json").write_text("{}")
    return folder


def fill(page: Page, folder: Path, *, name: str = "mine") -> None:
    page.goto("/families")
    page.get_by_label("Folder of the seed").set_input_files(folder)
    page.get_by_label("Name").fill(name)
    page.get_by_label("License").fill("Apache-2.0")
    page.get_by_label("Description").fill(HOSTILE)
    page.get_by_role("button", name="Register the family").click()


def test_a_seed_is_registered_from_the_browser(page: Page, store: BlobStore, seed: Path) -> None:
    fill(page, seed)

    row = page.get_by_role("row").filter(has_text="mine")
    # A worker checks it then.
    expect(row).to_contain_text("checking")
    expect(row).to_contain_text(HOSTILE)
    with db.transaction() as session:
        family = families.find(session, "mine")
        assert family.state is VersionState.CHECKING
        assert manifests.load(store, family.seed_digest) == tiny.store_manifest(store)


def test_a_refusal_is_shown_with_every_problem(
    page: Page, complaints: list[str], store: BlobStore, seed: Path
) -> None:
    (seed / "tokenizer.json").unlink()
    fill(page, seed)

    expect(page.get_by_role("alert")).to_contain_text("/files/tokenizer.json is missing")
    complaints.clear()  # the browser reports the 422


def test_a_folder_without_a_checkpoint_is_refused_by_the_page(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.md").write_text("nothing")
    fill(page, tmp_path / "text")

    expect(page.get_by_role("alert")).to_contain_text("has no config.json")


def test_families_are_listed(page: Page, store: BlobStore) -> None:
    with db.transaction() as session:
        factories.make_family(session, store, name="small")
    page.goto("/families")

    expect(page.get_by_role("row").filter(has_text="small")).to_contain_text("Apache-2.0")


def test_a_seed_that_failed_says_why_and_is_checked_again(page: Page, store: BlobStore) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store, name="small")
        families.begin_checks(family)
        session.flush()
        families.mark_failed(session, family.id, error="/config.json names no architecture")
    page.goto("/families")
    row = page.get_by_role("row").filter(has_text="small")
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("/config.json names no architecture")
    expect(row).not_to_contain_text("checked")

    row.get_by_role("button", name="Retry").click()
    expect(row).to_contain_text("checking")
    expect(row).to_contain_text("checked 2 times")
    expect(row.get_by_role("button")).to_have_count(0)


def test_a_projection_is_learned_again_with_the_experts_documents(
    page: Page, store: BlobStore
) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store, name="small")
        expert = factories.make_expert(session, family, name="law")
        factories.make_version(session, expert, store)
        public = [Document(name, "a text", "train", name) for name in ("code", "essays")]
        first = projections.request(
            session,
            family="small",
            documents_digest=put_bytes(store, serialize(public)),
            embedder_digest=states_embedder_digest(family.seed_digest),
            training={},
        )
        projections.mark_ready(session, first, manifest_digest="m" * 64, metrics={})
    page.goto("/families")
    row = page.get_by_role("row").filter(has_text="small")
    row.get_by_role("button", name="Learn again").click()
    expect(row).to_contain_text("small@2 waits for a worker")
    with db.transaction() as session:
        learned = projections.find(session, family="small", number=2).documents_digest
    assert list(group_by_domain(parse(store.read(learned)))) == ["code", "essays", "law"]
