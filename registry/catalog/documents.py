"""Sample documents of a domain: JSON Lines, `{"id", "text", "split"}`, split by document.

Domain embeddings, finetunes and gates read them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from registry import bounded_json
from registry.errors import MAX_PROBLEMS, InvalidInput, Problem
from registry.texts import SURROGATES

Split = Literal["train", "held-out"]

SPLITS = ("train", "held-out")
MAX_LINE_BYTES = 16 << 20
# Their ids are held in memory while a file is checked.
MAX_DOCUMENTS = 1_000_000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Of one version of an expert, or of a projection.
MAX_BYTES = 256 << 20
# Documents that represent a domain where not all are read.
MAX_SAMPLE = 64
# Shorter texts, such as a heading or a line of a license, are equal by chance and are not compared.
MIN_COMPARED_CHARACTERS = 64


@dataclass(frozen=True)
class Document:
    """One text. `domain` is set only where one file holds documents of several domains."""

    id: str
    text: str
    split: Split
    domain: str | None = None


def parse(chunks: Iterable[bytes]) -> list[Document]:
    """Read the documents of a JSON Lines blob, given in chunks of bytes.

    Raises InvalidInput with one problem for each bad line.
    """
    return list(parsed(chunks))


def parsed(chunks: Iterable[bytes]) -> Iterator[Document]:
    """Yield the documents of a JSON Lines blob, one at a time.

    Raises InvalidInput with one problem for each bad line, and for more than MAX_DOCUMENTS. Nothing
    is yielded after the first bad line.
    """
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, line in enumerate(_lines(chunks), start=1):
        if not line.strip():
            continue
        try:
            document = _document(line)
            if document.id in seen:
                raise ValueError(f"id {document.id!r} is on an earlier line too")
            if len(seen) == MAX_DOCUMENTS:
                raise ValueError(f"more than {MAX_DOCUMENTS} documents: send a sample")
        except ValueError as error:
            problems.append(Problem(f"/documents/{number}", f"line {number}: {error}"))
            if len(problems) == MAX_PROBLEMS:
                break
            continue
        seen.add(document.id)
        if not problems:
            yield document
    if problems:
        raise InvalidInput("the documents cannot be read", problems=tuple(problems))


def stream(chunks: Iterable[bytes]) -> Iterator[Document]:
    """Yield the documents of a blob that `parse` has accepted, one at a time."""
    return (_document(line) for line in _lines(chunks) if line.strip())


def check_expert_documents(documents: Iterable[Document]) -> None:
    """Check that an expert's documents have both splits and that none is in both.

    Their texts are not kept, so that they may be more than fit into the memory. Raises InvalidInput
    if a split is empty, or if a held-out document has the text of a training document.
    """
    present: set[str] = set()
    trained: dict[bytes, str] = {}
    held_out: list[tuple[str, bytes]] = []
    for document in documents:
        present.add(document.split)
        if not _is_compared(document):
            continue
        if document.split == "train":
            trained[_text_digest(document)] = document.id
        else:
            held_out.append((document.id, _text_digest(document)))
    problems = tuple(
        Problem("/documents", f"none with split {split!r}, at least one is needed")
        for split in SPLITS
        if split not in present
    )
    problems += tuple(
        Problem("/documents", f"{name!r} is held out, and has the text of {known!r}, split 'train'")
        for name, digest in held_out
        if (known := trained.get(digest)) is not None
    )
    if problems:
        raise InvalidInput("the documents do not describe a domain", problems=problems)


def training_texts(documents: Iterable[Document]) -> dict[bytes, str]:
    """Return the ids of the training documents by SHA-256 of their text.

    Surrounding white space is ignored, and short documents are left out.
    """
    return {
        _text_digest(document): document.id
        for document in documents
        if document.split == "train" and _is_compared(document)
    }


def find_leaked(
    documents: Iterable[Document], trained: Mapping[bytes, str]
) -> Iterator[tuple[str, str]]:
    """Yield held-out documents whose text was trained on: their id and the training document's.

    A measurement on them shows only how well a model remembers. `trained` is the result of
    `training_texts`.
    """
    for document in documents:
        if document.split == "held-out" and _is_compared(document):
            known = trained.get(_text_digest(document))
            if known is not None:
                yield document.id, known


def split_held_out(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Return the held-out documents to choose a compression by, and those to judge it by.

    Every other document, so that both have texts from the whole collection. What was chosen by a
    text looks better on it than on others.
    """
    held_out = [document for document in documents if document.split == "held-out"]
    return held_out[::2], held_out[1::2]


def judging_a_compression(domains: Sequence[Sequence[Document]]) -> list[list[Document]]:
    """Return of each domain the held-out documents to judge a compression by.

    Texts that it was chosen by are left out, in whatever domain and under whatever id they are.
    """
    halves = [split_held_out(own) for own in domains]
    chosen = {_text_digest(document) for choosing, _ in halves for document in choosing}
    return [[d for d in judging if _text_digest(d) not in chosen] for _, judging in halves]


def _is_compared(document: Document) -> bool:
    return len(document.text.strip()) >= MIN_COMPARED_CHARACTERS


def _text_digest(document: Document) -> bytes:
    return hashlib.sha256(document.text.strip().encode()).digest()


def group_by_domain(documents: Iterable[Document]) -> dict[str, list[Document]]:
    """Return the training documents of each domain, for the training of a projection.

    Raises InvalidInput if a document names no domain, or if there are fewer than two domains.
    """
    domains: dict[str, list[Document]] = {}
    for document in documents:
        if document.split != "train":
            continue
        if document.domain is None:
            problem = Problem("/documents", f"document {document.id!r} names no domain")
            raise InvalidInput("a projection is trained on named domains", problems=(problem,))
        domains.setdefault(document.domain, []).append(document)
    if len(domains) < 2:
        problem = Problem("/documents", f"{len(domains)} domains to train on, two are needed")
        raise InvalidInput("a projection tells domains apart", problems=(problem,))
    return domains


def sample_evenly(documents: Sequence[Document], *, count: int = MAX_SAMPLE) -> list[str]:
    """Return at most `count` training texts, taken evenly from the whole collection.

    Held-out documents are for the gate only, so no part of a mix may come from them.
    """
    texts = [document.text for document in documents if document.split == "train"]
    return texts[:: max(1, -(-len(texts) // count))]


def spread(documents: Sequence[Document], *, num_characters: int) -> list[Document]:
    """Return training documents, taken evenly: about `num_characters` of them, or all there are."""
    training = [document for document in documents if document.split == "train"]
    total = sum(len(document.text) for document in training)
    return training[:: max(1, total // num_characters)]


def serialize(documents: Iterable[Document]) -> bytes:
    """Write documents as the JSON Lines that `parse` reads; equal documents give equal bytes."""
    lines = []
    for document in documents:
        fields = {"id": document.id, "text": document.text, "split": document.split}
        if document.domain is not None:
            fields["domain"] = document.domain
        lines.append(json.dumps(fields, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > MAX_LINE_BYTES:
            # Yielded as it is, so that the error message gives the number of the line.
            break
    yield rest


def _document(line: bytes) -> Document:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"more than {MAX_LINE_BYTES} bytes: cut the document into several")
    try:
        content = bounded_json.parse(line.removeprefix(BYTE_ORDER_MARK), unfit=SURROGATES)
    except InvalidInput as error:
        raise ValueError(error.detail) from error
    if not isinstance(content, dict):
        raise ValueError('expected an object {"id", "text", "split"}')
    for field in ("id", "text"):
        if not isinstance(content.get(field), str) or not content[field].strip():
            raise ValueError(f"{field!r} must be a text that is not blank")
    if content.get("split") not in SPLITS:
        raise ValueError(f"'split' is {content.get('split')!r}, expected one of {SPLITS}")
    domain = content.get("domain")
    if domain is not None and not isinstance(domain, str):
        raise ValueError("'domain' must be a text")
    return Document(content["id"], content["text"], cast(Split, content["split"]), domain)
