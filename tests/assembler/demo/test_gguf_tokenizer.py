"""Tokenizers that are made of a GGUF file's metadata split text as the models' own.

Covers: gguf_tokens.
"""

from typing import Any

import pytest
from tokenizers import Tokenizer

from assembler.demo import gguf_tokenizer
from tests.assembler.demo import seed_files

TEXT = "It's the 1984 <|im_end|> end,\n\n  über 日本\n\tx <tool_call>"


def metadata(splits: str) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": splits,
        "tokenizer.ggml.tokens": seed_files.TOKENS,
        "tokenizer.ggml.token_type": seed_files.TYPES,
        "tokenizer.ggml.merges": seed_files.MERGES,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{{ messages }}",
    }


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    assert tokenizer.pre_tokenizer is not None
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("splits", ["smollm", "qwen2"])
def test_text_comes_back(splits: str) -> None:
    tokenizer = gguf_tokenizer.of(metadata(splits))
    encoding = tokenizer.encode(TEXT)
    assert {"the", seed_files.END, seed_files.TOOL} <= set(encoding.tokens)
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == TEXT
    assert seed_files.TOOL in tokenizer.decode(encoding.ids)
    assert seed_files.END not in tokenizer.decode(encoding.ids)


def test_smollm_takes_the_space_before_a_word_and_each_digit_alone() -> None:
    tokenizer = gguf_tokenizer.of(metadata("smollm"))
    assert words(tokenizer, "a 12 b") == ["a", "Ġ", "1", "2", "Ġb"]
    assert tokenizer.normalizer is None


def test_qwen2_keeps_line_ends_with_the_signs_before_them() -> None:
    tokenizer = gguf_tokenizer.of(metadata("qwen2"))
    assert words(tokenizer, "a's 12,\n\nb") == ["a", "'s", "Ġ", "1", "2", ",ĊĊ", "b"]
    assert tokenizer.encode("u\u0308").ids == tokenizer.encode("ü").ids


@pytest.mark.slow
def test_qwen2_splits_as_in_transformers() -> None:
    from transformers.models.qwen2 import tokenization_qwen2

    assert gguf_tokenizer.QWEN2_WORDS == tokenization_qwen2.PRETOKENIZE_REGEX


def test_rows_that_fill_up_have_no_token() -> None:
    vocabulary = gguf_tokenizer.of(metadata("qwen2")).get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(seed_files.WORDS) + 2))


def test_roles_are_named_in_both_files() -> None:
    assert gguf_tokenizer.special_ids(metadata("qwen2")) == {"eos_token_id": 258}
    config = gguf_tokenizer.config(metadata("qwen2"), context=256)
    assert (config["eos_token"], config["unk_token"]) == (seed_files.END, seed_files.TOKENS[0])
    assert "bos_token" not in config
