"""A tokenizer reads whole texts, and every token of it has a row in the network."""

import json
from typing import Any

import pytest

from assembler import tokenizer_file
from registry.errors import InvalidCheckpoint
from tests import tiny

TEXT = "a b c " * 100
TRUNCATION = {"max_length": 64, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
PADDING = {
    "strategy": {"Fixed": 64},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": tiny.UNKNOWN,
}


def changed(**changes: Any) -> bytes:
    content = json.loads(tiny.tokenizer_files()["tokenizer.json"])
    return json.dumps(content | changes).encode()


def with_token(number: int) -> bytes:
    content = json.loads(changed())
    content["model"]["vocab"]["\N{SNOWMAN}"] = number
    return json.dumps(content).encode()


def test_stored_truncation_and_padding_change_no_text() -> None:
    plain, stored = (
        tokenizer_file.read(data)
        for data in (changed(), changed(truncation=TRUNCATION, padding=PADDING))
    )
    for text in (TEXT, "a"):
        assert stored.encode(text).ids == plain.encode(text).ids


@pytest.mark.parametrize("data", [b"{}", b"[]", b"not json", b"\xff\xfe", changed(model={})])
def test_a_file_that_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"tokenizer\.json is no tokenizer"):
        tokenizer_file.read(data)


def test_a_tokenizer_of_the_network_fits() -> None:
    tokenizer_file.check_fits(tokenizer_file.read(changed()), vocab_size=64)
    tokenizer_file.check_reads(tokenizer_file.read(changed()), [TEXT])


def test_a_token_beyond_the_vocabulary_is_named() -> None:
    tokenizer = tokenizer_file.read(with_token(64))
    with pytest.raises(
        InvalidCheckpoint, match="has 1 tokens beyond the vocabulary of 64"
    ) as error:
        tokenizer_file.check_fits(tokenizer, vocab_size=64)
    assert "'\N{SNOWMAN}' is 64" in error.value.detail


def test_a_framing_token_beyond_the_vocabulary_is_named() -> None:
    special = {"[START]": {"id": "[START]", "ids": [99], "tokens": ["[START]"]}}
    pieces = [
        {"SpecialToken": {"id": "[START]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    frame = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": pieces,
        "special_tokens": special,
    }
    tokenizer = tokenizer_file.read(changed(post_processor=frame))
    with pytest.raises(InvalidCheckpoint, match=r"'\[START\]' is 99"):
        tokenizer_file.check_fits(tokenizer, vocab_size=64)


def test_a_tokenizer_without_tokens_is_refused() -> None:
    content = json.loads(changed(added_tokens=[]))
    content["model"] |= {"vocab": {}, "unk_token": None}
    tokenizer = tokenizer_file.read(json.dumps(content).encode())
    with pytest.raises(InvalidCheckpoint, match="has no tokens"):
        tokenizer_file.check_fits(tokenizer, vocab_size=64)
    with pytest.raises(InvalidCheckpoint, match="finds no token"):
        tokenizer_file.check_reads(tokenizer, [TEXT])
