"""Cleaning removes near-duplicates, splits stably, and bounds the size of documents."""

import numpy as np

from assembler.demo.corpora import clean


def prose(seed: int, *, words: int = 300) -> str:
    random = np.random.default_rng(seed)
    return " ".join("".join(random.choice(list("abcdefgh"), 5)) for _ in range(words))


def test_a_copy_with_other_numbers_is_a_near_duplicate() -> None:
    original = prose(0) + " version 1.2"
    copy = original.replace("1.2", "3.4").replace("a", "a", 1)
    texts = [("a", original), ("b", prose(1)), ("c", copy)]
    assert [name for name, _ in clean.without_near_duplicates(texts)] == ["a", "b"]


def test_the_result_does_not_depend_on_the_order() -> None:
    texts = [(f"page-{i}", prose(i)) for i in range(40)]
    forward = clean.documents(texts, domain="d", limit=20)
    assert forward == clean.documents(reversed(texts), domain="d", limit=20)
    assert len(forward) == 20
    assert {document.split for document in forward} == {"train", "held-out"}
    assert {document.domain for document in forward} == {"d"}


def test_short_texts_are_dropped_and_long_ones_cut_at_a_line() -> None:
    long = "\n".join(prose(i, words=30) for i in range(60))
    (document,) = clean.documents([("s", "too short"), ("l", long)], domain="d", limit=9)
    assert document.id == "d/l"
    assert clean.MIN_CHARACTERS < len(document.text) <= clean.MAX_CHARACTERS
    assert long[len(document.text)] == "\n"
