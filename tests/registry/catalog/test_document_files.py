"""Documents are read from a file of JSON Lines or of plain text."""

from pathlib import Path

import pytest

from registry.catalog.document_files import HELD_OUT_EVERY, MAX_CHARACTERS, as_json_lines, read_text
from registry.catalog.documents import check_expert_documents, parse, serialize
from registry.errors import InvalidInput
from tests import tiny


def paragraphs(count: int) -> str:
    return "\n\n".join(f"Paragraph {n}.\n    " + f"word{n} " * 80 for n in range(count))


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "own.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidInput) as error:
        read_text(path)
    return " ".join([error.value.detail, *(problem.detail for problem in error.value.problems)])


def test_text_becomes_documents_that_describe_a_domain(tmp_path: Path) -> None:
    text = paragraphs(100)
    documents = read_text(write(tmp_path, text))

    check_expert_documents(documents)
    assert max(len(document.text) for document in documents) <= MAX_CHARACTERS
    # No paragraph is lost, cut or moved, and lines keep their indentation.
    joined = "\n\n".join(document.text for document in documents)
    assert joined == "\n\n".join(paragraph.rstrip() for paragraph in text.split("\n\n"))
    held_out = [n for n, document in enumerate(documents, start=1) if document.split == "held-out"]
    assert held_out == list(range(HELD_OUT_EVERY, len(documents) + 1, HELD_OUT_EVERY))


def test_equal_texts_give_equal_bytes(tmp_path: Path) -> None:
    unix, windows = paragraphs(100), "\ufeff" + paragraphs(100).replace("\n", "\r\n")
    written = []
    for text in (unix, unix, windows):
        with as_json_lines(write(tmp_path, text)) as path:
            written.append(path.read_bytes())

    assert written[0] == written[1] == written[2]
    assert parse([written[0]]) == read_text(tmp_path / "own.txt")


def test_a_long_paragraph_is_cut_between_words(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(10_000)]
    documents = read_text(write(tmp_path, " ".join(words)))

    assert [word for document in documents for word in document.text.split()] == words
    assert max(len(document.text) for document in documents) <= MAX_CHARACTERS


def test_text_without_white_space_is_cut_too(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + n % 20_000) for n in range(20_000))
    documents = read_text(write(tmp_path, text))

    assert "".join(document.text for document in documents) == text


def test_a_repeated_document_is_read_once(tmp_path: Path) -> None:
    notice = "All rights reserved. " * 90
    text = "\n\n".join(f"{notice}\n\n{'new ' * 300}{n}" for n in range(20))
    documents = read_text(write(tmp_path, text))

    assert len({document.text for document in documents}) == len(documents)
    check_expert_documents(documents)


def test_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_bytes(serialize(tiny.sample_documents(expert=1)))

    with as_json_lines(own) as path:
        assert path == own


def test_json_lines_under_another_name_are_refused(tmp_path: Path) -> None:
    """Read as text, they would be cut anywhere and lose their splits."""
    lines = serialize(tiny.sample_documents(expert=1))

    assert "ends in .jsonl" in refusal(write(tmp_path, lines))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "0 characters make 0 documents"),
        (" \n\n \n", "make 0 documents"),
        ("short", "5 characters make 1 documents of up to 2000 characters, at least 10"),
        ("Same again. " * 5000, "at least 10 different ones are needed"),
        (b"caf\xe9" * 5000, "is not text in UTF-8 invalid continuation byte at byte 3"),
    ],
    ids=["empty", "blank", "short", "repeated", "latin-1"],
)
def test_too_little_text_is_refused(tmp_path: Path, content: str | bytes, reason: str) -> None:
    assert reason in refusal(write(tmp_path, content))


@pytest.mark.parametrize("name", ["own.txt", "own.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(InvalidInput, match="there is no file"), as_json_lines(path):
        pass
