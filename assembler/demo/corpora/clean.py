"""Make documents of raw texts: normalize, cut, remove near-duplicates, split."""

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from registry.catalog.documents import Document, Split

MIN_CHARACTERS = 400
MAX_CHARACTERS = 6_000
HELD_OUT_SHARE = 0.25

_SHINGLE_WORDS = 5
_SKETCH_SIZE = 128
# Two texts are near-duplicates if they share at least this part of the later text's sketch.
_DUPLICATE_OVERLAP = 0.4


def documents(texts: Iterable[tuple[str, str]], *, domain: str, limit: int) -> list[Document]:
    """Return at most `limit` documents made of `(id, text)` pairs, in an order of their own.

    The result does not depend on the order of the pairs. Texts shorter than MIN_CHARACTERS are
    dropped; longer ones than MAX_CHARACTERS are cut at the end of a line. Near-duplicates are
    removed before the documents are split by a hash of their id, so no held-out document has a
    near-duplicate among the training documents.
    """
    candidates = sorted(texts, key=lambda pair: _hash(f"{domain}/{pair[0]}"))
    cleaned = ((name, _normalize(text)) for name, text in candidates)
    long_enough = ((name, text) for name, text in cleaned if len(text) >= MIN_CHARACTERS)
    kept = []
    for name, text in without_near_duplicates(long_enough):
        kept.append(Document(f"{domain}/{name}", text, _split(f"{domain}/{name}"), domain))
        if len(kept) == limit:
            break
    return kept


def without_near_duplicates(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the `(id, text)` pairs that share few word 5-grams with every earlier pair.

    A text is represented by its smallest hashes of 5-grams (a bottom-k sketch: Broder, "On the
    resemblance and containment of documents", 1997). An inverted index finds texts with common
    hashes.
    """
    texts_by_shingle: dict[int, list[int]] = defaultdict(list)
    for number, (name, text) in enumerate(texts):
        sketch = _sketch(text)
        common = Counter(other for shingle in sketch for other in texts_by_shingle[shingle])
        if common and max(common.values()) >= _DUPLICATE_OVERLAP * len(sketch):
            continue
        for shingle in sketch:
            texts_by_shingle[shingle].append(number)
        yield name, text


def _sketch(text: str) -> list[int]:
    # Numbers are left out, so that pages with different versions or addresses only are duplicates.
    words = re.findall(r"[^\W\d_]+|[^\w\s]", text.lower())
    last = max(1, len(words) - _SHINGLE_WORDS + 1)
    shingles = {" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(last)}
    return sorted(_hash(shingle) for shingle in shingles)[:_SKETCH_SIZE]


def _normalize(text: str) -> str:
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n"))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS]
        text = text[: text.rfind("\n") if "\n" in text[MIN_CHARACTERS:] else None].rstrip()
    return text


def _split(name: str) -> Split:
    return "held-out" if _hash("split/" + name) % 1000 < 1000 * HELD_OUT_SHARE else "train"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
