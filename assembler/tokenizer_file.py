"""Read `tokenizer.json` as text is read here: whole, and without padding.

A file may store a truncation and a padding that its owner used last. Neither belongs to the
tokenizer: both would change what a text means and every figure that is measured on it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from registry.checkpoints.file_names import TOKENIZER
from registry.errors import InvalidCheckpoint, Problem, pointer

AT = pointer("files", TOKENIZER)
# Shown of the tokens that the network has no row for.
MAX_EXAMPLES = 3


def read(data: bytes) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`, without its truncation and padding.

    Raises InvalidCheckpoint if it is none.
    """
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    # The library raises Exception itself, for whatever is wrong.
    except Exception as error:
        detail = f"{TOKENIZER} is no tokenizer: {error}"
        raise InvalidCheckpoint(detail, problems=(Problem(AT, str(error)),)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def start(tokenizer: Tokenizer, *, config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the begin-of-text token if the tokenizer puts it before every text, else nothing."""
    first = tokenizer.encode("", add_special_tokens=True).ids[:1]
    return tuple(first) if first == [config.get("bos_token_id")] else ()


def check_fits(tokenizer: Tokenizer, *, vocab_size: int) -> None:
    """Check that the network has a row for every token, also for those that frame a text.

    Raises InvalidCheckpoint with the tokens that have none.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise _refused("has no tokens")
    framing = tokenizer.encode("", add_special_tokens=True)
    beyond = {
        token: number
        for token, number in [*vocabulary.items(), *zip(framing.tokens, framing.ids, strict=True)]
        if number >= vocab_size
    }
    if beyond:
        examples = ", ".join(
            f"{token!r} is {beyond[token]}"
            for token in sorted(beyond, key=lambda token: beyond[token])[:MAX_EXAMPLES]
        )
        raise _refused(
            f"has {len(beyond)} tokens beyond the vocabulary of {vocab_size} that config.json"
            f" names ({examples}): the network has no row for them"
        )


def check_reads(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Check that the texts have tokens at all. Raises InvalidCheckpoint."""
    if not any(e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)):
        raise _refused("finds no token in the documents")


def _refused(detail: str) -> InvalidCheckpoint:
    return InvalidCheckpoint(f"{TOKENIZER} {detail}", problems=(Problem(AT, detail),))
