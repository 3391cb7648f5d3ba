"""Make a tokenizer of SentencePiece again from the metadata of a GGUF file.

SentencePiece joins the two neighbors whose joined piece has the best score, until no joined piece
is in the vocabulary. A list of merges in the order of their scores does the same. Pieces that users
have defined, such as runs of spaces, are found before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, processors

from assembler.demo import gguf_tokens
from assembler.demo.gguf_tokens import KEY, NORMAL

SPACE = "\u2581"


def of(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a file that puts no space before texts."""
    assert metadata[f"{KEY}add_space_prefix"] is False
    tokens = gguf_tokens.listed(metadata)
    unknown = tokens[metadata[f"{KEY}unknown_token_id"]][0]
    model = models.BPE(
        vocab=gguf_tokens.vocabulary(tokens),
        merges=merges(tokens, metadata[f"{KEY}scores"]),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    spaces = decoders.Replace(SPACE, " ")
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens(gguf_tokens.added(tokens, normalized=True))
    if metadata[f"{KEY}add_bos_token"]:
        number = metadata[f"{KEY}bos_token_id"]
        begin = tokens[number][0]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, number)]
        )
    return tokenizer


def merges(tokens: Sequence[tuple[str, int]], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the pairs of pieces that are joined to a piece, those with the best scores first."""
    numbers = gguf_tokens.vocabulary(tokens)
    pairs = [
        (-scores[number], numbers[token[:at]], numbers[token[at:]])
        for number, (token, kind) in enumerate(tokens)
        if kind == NORMAL
        for at in range(1, len(token))
        if token[:at] in numbers and token[at:] in numbers
    ]
    return [(tokens[left][0], tokens[right][0]) for _, left, right in sorted(pairs)]
