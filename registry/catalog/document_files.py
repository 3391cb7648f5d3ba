"""Read an owner's file of documents: JSON Lines as they are, plain text cut into documents.

The registry stores JSON Lines only. Equal texts give equal documents, and so equal digests.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.catalog.documents import (
    MAX_BYTES,
    Document,
    check_expert_documents,
    group_by_domain,
    parse,
    serialize,
)
from registry.errors import InvalidInput, Problem

JSON_LINES = ".jsonl"
# About 500 tokens of English: several windows of a finetune, and one prefix of a gate.
MAX_CHARACTERS = 2000
# One of this number of documents is held out.
HELD_OUT_EVERY = 10
CHUNK_BYTES = 1 << 20
BLANK_LINES = re.compile(r"\n\s*\n")


@contextmanager
def as_json_lines(path: Path) -> Iterator[Path]:
    """Yield a JSON Lines file with the documents of `path`, valid inside the `with` block.

    A `.jsonl` file is yielded as it is and not checked. Every other file is read as plain text; see
    `read_text`. Nothing is written beside `path`. Raises InvalidInput.
    """
    if path.suffix == JSON_LINES:
        _check_exists(path)
        yield path
        return
    documents = read_text(path)
    with TemporaryDirectory(prefix="nexusmix-") as folder:
        json_lines = Path(folder) / f"documents{JSON_LINES}"
        json_lines.write_bytes(serialize(documents))
        yield json_lines


def check_expert_file(path: Path) -> None:
    """Check that a file of documents, text or JSON Lines, describes the domain of an expert.

    Raises InvalidInput.
    """
    check_expert_documents(read_documents(path))


def check_projection_file(path: Path) -> None:
    """Check that a projection can learn from a file of JSON Lines. Raises InvalidInput."""
    if path.suffix != JSON_LINES:
        detail = f"is no file of JSON Lines: its name must end in {JSON_LINES}"
        raise InvalidInput(f"{path} {detail}")
    group_by_domain(read_documents(path))


def check_file(path: Path) -> None:
    """Check that a file of JSON Lines holds documents. Raises InvalidInput."""
    read_documents(path)


def _check_size(path: Path) -> None:
    """Raise InvalidInput for a file with more documents than a registry takes."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InvalidInput(
            f"{path} has {size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} MB are taken: give a"
            " sample"
        )


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a file, text or JSON Lines. Raises InvalidInput."""
    _check_exists(path)
    if path.suffix != JSON_LINES:
        return read_text(path)
    _check_size(path)
    try:
        with path.open("rb") as file:
            return parse(iter(lambda: file.read(CHUNK_BYTES), b""))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.detail}", problems=error.problems) from error


def read_text(path: Path) -> list[Document]:
    """Cut a plain text in UTF-8 into documents, and hold every tenth of them out.

    Blank lines separate paragraphs. Paragraphs are joined into documents of at most MAX_CHARACTERS;
    a longer paragraph is cut between two words. Repeated documents are dropped. Raises InvalidInput
    if the file does not exist, is not UTF-8, gives fewer than HELD_OUT_EVERY documents, or is JSON
    Lines under another name.
    """
    _check_exists(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"{error.reason} at byte {error.start}; convert it first"
        raise _refusal(f"{path} is not text in UTF-8", detail) from error
    if _begins_with_json_object(text):
        detail = f"a file of JSON Lines ends in {JSON_LINES}; every other file is read as text"
        raise _refusal(f"{path} seems to be JSON Lines", detail)
    texts = list(dict.fromkeys(_cut(text)))
    if len(texts) < HELD_OUT_EVERY:
        detail = (
            f"{len(text)} characters make {len(texts)} documents of up to {MAX_CHARACTERS}"
            f" characters, at least {HELD_OUT_EVERY} different ones are needed"
        )
        raise _refusal(f"{path} has too little text", detail)
    return [
        Document(str(number), text, "train" if number % HELD_OUT_EVERY else "held-out")
        for number, text in enumerate(texts, start=1)
    ]


def _cut(text: str) -> Iterator[str]:
    """Yield texts of at most MAX_CHARACTERS; each holds as many paragraphs as fit."""
    current = ""
    for paragraph in BLANK_LINES.split(text):
        for piece in _pieces(paragraph.strip("\n").rstrip()):
            if current and len(current) + 2 + len(piece) > MAX_CHARACTERS:
                yield current
                current = piece
            else:
                current = f"{current}\n\n{piece}" if current else piece
    if current:
        yield current


def _pieces(paragraph: str) -> Iterator[str]:
    """Yield the paragraph in pieces of at most MAX_CHARACTERS, cut at white space.

    A word longer than that is cut too.
    """
    start = 0
    while len(paragraph) - start > MAX_CHARACTERS:
        last = start + MAX_CHARACTERS
        end = max(paragraph.rfind(mark, start, last + 1) for mark in ("\n", " "))
        if end <= start:
            end = last
        yield paragraph[start:end].rstrip()
        start = end
        while start < len(paragraph) and paragraph[start].isspace():
            start += 1
    if rest := paragraph[start:]:
        yield rest


def _begins_with_json_object(text: str) -> bool:
    """Tell whether the first line with text is a JSON object."""
    try:
        return isinstance(json.loads(text.lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder: name a file of documents")
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")


def _refusal(message: str, detail: str) -> InvalidInput:
    return InvalidInput(message, problems=(Problem("/documents", detail),))
