"""General text comes from the family's projection, as much from each of its sources."""

from dataclasses import replace

from sqlalchemy.orm import Session

from assembler.evaluation import general_text
from assembler.evaluation.general_text import GeneralText
from assembler.training.batches import TokenReader
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents, projections
from tests import tiny
from tests.assembler import rows, tiny_mixes

SOURCES = (4, 5)


def public(*, num_held_out: int = 12) -> list[documents.Document]:
    return [
        replace(document, domain=f"source {number}")
        for number in SOURCES
        for document in tiny.sample_documents(expert=number, num_held_out=num_held_out)
    ]


def test_each_source_gives_as_many_windows(blobs: LocalBlobs) -> None:
    reader = TokenReader.of(tiny.store_manifest(blobs), blobs)
    text = general_text.read(put_bytes(blobs, documents.serialize(public())), blobs)
    assert text is not None
    windows = text.windows(reader, num_tokens=8 * WINDOW_TOKENS)
    assert windows is not None
    assert windows.shape == (8, WINDOW_TOKENS)
    # Every word of a source ends with its number.
    texts = [reader.decode(window.tolist()) for window in windows]
    assert [("4" in text, "5" in text) for text in texts] == [(True, False)] * 4 + [
        (False, True)
    ] * 4


def test_without_held_out_documents_there_is_no_general_text(blobs: LocalBlobs) -> None:
    digest = put_bytes(blobs, documents.serialize(public(num_held_out=0)))
    assert general_text.read(digest, blobs) is None
    assert general_text.read(None, blobs) is None


def test_text_that_fills_no_window_is_none(blobs: LocalBlobs) -> None:
    short = GeneralText(
        digest="ab" * 32, documents=[documents.Document("a", "few words", "held-out")]
    )
    reader = TokenReader.of(tiny.store_manifest(blobs), blobs)
    assert short.windows(reader, num_tokens=WINDOW_TOKENS) is None


def test_a_recipe_without_a_projection_takes_the_newest_of_its_family(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_all(session, blobs)
    expected = projections.pin(session, "tiny").documents_digest
    recipe = tiny_mixes.recipe()
    for projection in (None, "tiny@1"):
        asked = recipe.model_copy(update={"projection": projection})
        assert general_text.find_digest(session, asked) == expected


def test_a_family_without_a_projection_has_none(session: Session, blobs: LocalBlobs) -> None:
    rows.add_family(session, blobs)
    recipe = tiny_mixes.recipe().model_copy(update={"projection": None})
    assert general_text.find_digest(session, recipe) is None
