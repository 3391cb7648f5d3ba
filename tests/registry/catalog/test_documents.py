"""Documents of a domain are parsed, checked and written; wrong lines are named."""

import json
import tracemalloc

import pytest

from registry.catalog import documents
from registry.catalog.documents import (
    SPLITS,
    Document,
    check_expert_documents,
    judging_a_compression,
    parse,
    parsed,
    serialize,
    split_held_out,
)
from registry.errors import InvalidInput

DOCUMENTS = [
    Document("1", "Straße\nund Weg", "train"),
    Document("2", "law", "held-out", domain="law"),
]


def line(**changes: object) -> str:
    return json.dumps({"id": "1", "text": "t", "split": "train"} | changes)


def refusal(text: str | bytes) -> str:
    with pytest.raises(InvalidInput) as error:
        parse([text if isinstance(text, bytes) else text.encode()])
    (problem,) = error.value.problems
    return problem.detail


def test_written_documents_are_read_again() -> None:
    assert parse([serialize(DOCUMENTS)]) == DOCUMENTS


def test_chunks_may_end_anywhere() -> None:
    data = serialize(DOCUMENTS)
    assert parse(data[i : i + 1] for i in range(len(data))) == DOCUMENTS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1: not JSON"),
        (b"\xff", "line 1: not UTF-8"),
        ("[]", "line 1: expected an object"),
        ("[" * 100_000, "line 1: "),
        (line(id=3), "'id' must be a text"),
        (line(text=" \n"), "'text' must be a text that is not blank"),
        (line(split="test"), "'split' is 'test', expected one of"),
        (line(domain=1), "'domain' must be a text"),
        (
            line(text="\ud83d short"),
            "/text holds half of a surrogate pair (U+D83D), at character 1",
        ),
        (
            line(text="long " * 40 + "\udc00"),
            "/text holds half of a surrogate pair (U+DC00), at character 201",
        ),
        (line(id="1\ud83d"), "/id holds half of a surrogate pair (U+D83D), at character 2"),
        (line(domain="\ud83d"), "/domain holds half of a surrogate pair"),
        (b'{"id": "1", "text": "\xed\xa0\xbd", "split": "train"}', "not UTF-8"),
        (line() + "\n\n" + line(), "line 3: id '1' is on an earlier line too"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(text: str | bytes, reason: str) -> None:
    assert reason in refusal(text)


def test_a_line_without_end_is_refused() -> None:
    assert "cut the document into several" in refusal(b"x" * (17 << 20))


def test_every_wrong_line_is_named() -> None:
    with pytest.raises(InvalidInput) as error:
        parse([b"{\n" * 3])
    assert [problem.pointer for problem in error.value.problems] == [
        f"/documents/{number}" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(("kept", "lacking"), [(0, "held-out"), (1, "train")])
def test_both_splits_are_needed(kept: int, lacking: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_expert_documents([DOCUMENTS[kept]])
    assert [repr(lacking) in problem.detail for problem in error.value.problems] == [True]


def test_both_splits_are_enough() -> None:
    check_expert_documents(DOCUMENTS)


def test_a_held_out_document_must_not_be_trained_on() -> None:
    text = "It is not the spoon that bends, it is the theorem of the mean. " * 2
    texts = [Document("1", text, "train"), Document("2", f" {text}", "held-out")]
    with pytest.raises(InvalidInput) as refused:
        check_expert_documents(texts)
    (problem,) = refused.value.problems
    assert problem.detail == "'2' is held out, and has the text of '1', split 'train'"


def test_a_compression_is_judged_by_other_documents_than_it_is_chosen_by() -> None:
    texts = [Document(str(n), f"text {n}", "held-out" if n % 3 else "train") for n in range(9)]
    choosing, judging = split_held_out(texts)
    assert [document.id for document in choosing] == ["1", "4", "7"]
    assert [document.id for document in judging] == ["2", "5", "8"]


def test_a_text_that_a_compression_was_chosen_by_judges_it_nowhere() -> None:
    one = [Document(str(n), f"text {n}", "held-out") for n in range(4)]
    again = Document("again", " text 0", "held-out")
    other = [Document("a", "another", "held-out"), again, Document("b", "text 2", "held-out")]
    judging = judging_a_compression([one, [*other, Document("c", "the last", "held-out")]])
    assert [[document.id for document in own] for own in judging] == [["1", "3"], ["c"]]


def test_short_texts_may_be_equal() -> None:
    check_expert_documents(
        [Document("1", "See also", "train"), Document("2", "See also", "held-out")]
    )


def test_documents_are_checked_without_keeping_their_texts() -> None:
    """The texts are far more than what the check may need."""
    text = "x" * 100_000
    lines = (
        json.dumps({"id": str(n), "text": f"{n} {text}", "split": SPLITS[n % 2]}).encode() + b"\n"
        for n in range(300)
    )
    tracemalloc.start()
    try:
        check_expert_documents(parsed(lines))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 30 * len(text)


def test_more_documents_than_a_sample_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENTS", 1)
    assert "line 2: more than 1 documents" in refusal(serialize(DOCUMENTS))
