"""The tokens that a GGUF file lists, with their types."""

from collections.abc import Mapping, Sequence
from typing import Any

import gguf
from tokenizers import AddedToken

# Types of tokens: those that text never gives, those that are found before words are split, and
# rows of the network that fill up.
CONTROL, USER_DEFINED = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
UNUSED, NORMAL = gguf.TokenType.UNUSED, gguf.TokenType.NORMAL
KEY = "tokenizer.ggml."


def listed(metadata: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return all tokens in order, each with its type."""
    return list(zip(metadata[f"{KEY}tokens"], metadata[f"{KEY}token_type"], strict=True))


def vocabulary(tokens: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return the numbers of tokens. Rows that fill up have no token."""
    return {token: number for number, (token, kind) in enumerate(tokens) if kind != UNUSED}


def added(tokens: Sequence[tuple[str, int]], *, normalized: bool) -> list[AddedToken]:
    """Return the tokens that are found before words are split.

    `normalized` looks for those of users in normalized text.
    """
    return [
        AddedToken(token, special=kind == CONTROL, normalized=normalized and kind != CONTROL)
        for token, kind in tokens
        if kind in (CONTROL, USER_DEFINED)
    ]
