"""Experts as the pages show them."""

from typing import Any

from sqlalchemy import event

from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.database import db
from registry.database.tables import VersionState
from service.ui import expert_views
from tests import factories, tiny


def test_a_list_takes_one_query_for_any_number_of_experts(store: BlobStore) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        for position, name in enumerate(("art", "law", "sea"), start=1):
            expert = factories.make_expert(session, family, name=name)
            factories.make_version(session, expert, store, tiny_expert=position)
            factories.make_version(session, expert, store, number=2, tiny_expert=position)
        factories.make_expert(session, family, name="zoo")

    assert _list(limit=1) == (["art@2"], 1)
    assert _list(limit=4) == (["art@2", "law@2", "sea@2", "zoo without a version"], 1)


def test_own_bytes_are_those_that_the_seed_does_not_have(store: BlobStore) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        expert = factories.make_expert(session, family, name="law")
        factories.make_version(session, expert, store, tiny_expert=1)
        newest = expert_views.view(session, expert).newest

    tensors = tiny.tensors(expert=1)
    ffn = sum(len(data) for name, data in tensors.items() if ".mlp." in name)
    assert newest is not None
    assert newest.num_bytes == sum(map(len, tensors.values()))
    assert newest.num_own_bytes == ffn
    assert (newest.state, newest.error) == (VersionState.READY, None)


def _list(*, limit: int) -> tuple[list[str], int]:
    """Return the first experts with their newest versions, and the number of queries."""
    statements: list[str] = []

    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    with db.transaction() as session:
        rows = experts.find_page(session, limit=limit)
        event.listen(db.engine(), "before_cursor_execute", count)
        try:
            views = expert_views.views(session, rows)
        finally:
            event.remove(db.engine(), "before_cursor_execute", count)
    refs = [
        f"{view.name}@{view.newest.number}" if view.newest else f"{view.name} without a version"
        for view in views
    ]
    return refs, len(statements)
