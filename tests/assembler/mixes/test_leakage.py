"""Held-out text that a finetune has read is reported, with the experts and ids of documents."""

from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import leakage, mixes
from assembler.mixes.mix_change import MixChange
from assembler.mixes.new_mix import NewMix
from assembler.recipes.recipe import Recipe
from assembler.tables import MixVersion
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents, experts
from registry.catalog.documents import Document
from registry.errors import InvalidInput
from tests import tiny
from tests.assembler import rows
from tests.assembler.published import publish


def ask(session: Session, blobs: LocalBlobs) -> MixVersion:
    request = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
    return mixes.request(session, blobs, request)


def check(session: Session, blobs: LocalBlobs, version: MixVersion) -> None:
    recipe = Recipe.model_validate(version.recipe)
    leakage.check(recipe, leakage.finetuned_on(session, recipe), blobs)


def add(session: Session, blobs: LocalBlobs, expert: str, *more: Document) -> None:
    """Add documents to an expert, as if it had been registered with them."""
    version = experts.pin(session, expert)
    parsed = documents.parse(blobs.read(version.documents_digest))
    version.documents_digest = put_bytes(blobs, documents.serialize([*parsed, *more]))
    session.flush()


def test_experts_with_different_texts_are_accepted(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    check(session, blobs, ask(session, blobs))


def test_training_text_of_another_expert_is_reported(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = ask(session, blobs)
    # White space around a text does not matter.
    known = tiny.sample_documents(expert=1)[2]
    add(session, blobs, "expert-2", Document("mine", f"{known.text}\n", "held-out"))
    with pytest.raises(InvalidInput) as refused:
        check(session, blobs, version)
    (problem,) = refused.value.problems
    assert problem.pointer == "/experts/1"
    assert "1 held-out documents of expert-2@1 are training documents of expert-1@1" in (
        problem.detail
    )
    assert "'mine' is '1-2'" in problem.detail


def test_equal_short_texts_are_ignored(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    version = ask(session, blobs)
    add(session, blobs, "expert-1", Document("one", "See also.", "train"))
    add(session, blobs, "expert-2", Document("two", "See also.", "held-out"))
    check(session, blobs, version)


def test_training_text_of_the_previous_version_counts(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs, num_experts=3)
    publish(session, blobs, ask(session, blobs))
    revision = MixChange(base="mine@1", joining="expert-3", leaving="expert-1")
    version = mixes.request(session, blobs, revision)
    check(session, blobs, version)
    known = tiny.sample_documents(expert=1)[0]
    add(session, blobs, "expert-3", replace(known, id="moved", split="held-out"))
    with pytest.raises(InvalidInput) as refused:
        check(session, blobs, version)
    (problem,) = refused.value.problems
    assert "of expert-3@1 are training documents of expert-1@1" in problem.detail
