"""Make a tokenizer again from the metadata of a GGUF file.

A file names its way to split text, which llama.cpp knows by that name (`tokenizer.ggml.pre`). The
expressions here are those of the models' own `tokenizer.json`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gguf
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

# Name of a role in Hugging Face's files -> its name in GGUF files.
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Types of tokens: those that text never gives, those that are found before words are split, and
# rows of the network that fill up.
CONTROL, USER_DEFINED = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
UNUSED = gguf.TokenType.UNUSED
# Words with a sign before them, single digits, signs with line ends after them, white space.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _smollm() -> PreTokenizer:
    """Return single digits, then GPT-2's words."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _qwen2() -> PreTokenizer:
    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, in_bytes])


PRE_TOKENIZERS: Mapping[str, Callable[[], PreTokenizer]] = {"smollm": _smollm, "qwen2": _qwen2}
NORMALIZERS: Mapping[str, Callable[[], Normalizer]] = {"qwen2": normalizers.NFC}


def of(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the byte-level tokenizer of a file. Rows that fill up have no token."""
    tokens = _tokens(metadata)
    vocabulary = {token: number for number, (token, kind) in enumerate(tokens) if kind != UNUSED}
    merges = [tuple(pair.split(" ")) for pair in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    splits = metadata["tokenizer.ggml.pre"]
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[splits]()
    if splits in NORMALIZERS:
        tokenizer.normalizer = NORMALIZERS[splits]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kind == CONTROL, normalized=False)
            for token, kind in tokens
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    return tokenizer


def special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens that `config.json` names: begin, end, padding."""
    ids = _role_ids(metadata)
    return {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids}


def config(metadata: Mapping[str, Any], *, context: int) -> dict[str, Any]:
    """Return `tokenizer_config.json` with the chat template, for a network of that context."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": metadata["tokenizer.chat_template"],
        **{f"{role}_token": tokens[number] for role, number in _role_ids(metadata).items()},
    }


def _tokens(metadata: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return all tokens in order, each with its type."""
    tokens, types = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    return list(zip(tokens, types, strict=True))


def _role_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    keys = {role: f"tokenizer.ggml.{name}_token_id" for role, name in ROLES.items()}
    return {role: metadata[key] for role, key in keys.items() if key in metadata}
