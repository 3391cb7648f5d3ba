"""A tokenizer of SentencePiece joins pieces by their scores, and finds those of users first."""

from tokenizers import Tokenizer

from assembler import tokenizer_file
from assembler.demo import gguf_sentencepiece, gguf_tokenizer
from tests.assembler.demo import seed_files

METADATA = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": seed_files.SENTENCEPIECE,
    "tokenizer.ggml.token_type": seed_files.SENTENCEPIECE_TYPES,
    "tokenizer.ggml.scores": seed_files.SCORES,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
}


def tokens(text: str) -> list[str]:
    return list(made().encode(text, add_special_tokens=False).tokens)


def made() -> Tokenizer:
    return gguf_tokenizer.of(METADATA)


def test_the_best_score_is_joined_first() -> None:
    words = gguf_sentencepiece.merges(list(zip(*pieces(), strict=True)), seed_files.SCORES)
    assert words == [("\u2581", "th"), ("th", "e"), ("t", "h")]
    assert tokens("the the") == ["the", "\u2581th", "e"]


def pieces() -> tuple[list[str], list[int]]:
    return seed_files.SENTENCEPIECE, [int(kind) for kind in seed_files.SENTENCEPIECE_TYPES]


def test_a_run_of_spaces_is_found_before_words() -> None:
    assert tokens("   the") == [seed_files.RUN, "\u2581th", "e"]


def test_other_characters_are_bytes_and_come_back() -> None:
    text = "the \u00fc  t\n"
    encoding = made().encode(text)
    assert "<0xC3>" in encoding.tokens
    assert made().decode(encoding.ids) == text


def test_texts_begin_with_the_token_of_the_file() -> None:
    assert tokenizer_file.start(made(), config={"bos_token_id": 2}) == (2,)
    without = gguf_tokenizer.of(METADATA | {"tokenizer.ggml.add_bos_token": False})
    assert tokenizer_file.start(without, config={"bos_token_id": 2}) == ()
