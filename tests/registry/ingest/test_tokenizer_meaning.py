"""Tokenizers are the same if they cut texts in the same way, whatever their bytes."""

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from registry.errors import Incompatible, InvalidCheckpoint
from registry.ingest.tokenizer_meaning import compare

VOCABULARY = {"<s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5}
MERGES = [("a", "b"), ("ab", "c")]


def tokenizer(
    *,
    vocabulary: dict[str, int] = VOCABULARY,
    merges: list[tuple[str, str]] = MERGES,
    added: tuple[str, ...] = (),
) -> Tokenizer:
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<s>"])
    made.add_tokens(list(added))
    return made


def data(made: Tokenizer, **changes: Any) -> bytes:
    content = json.loads(made.to_str())
    content |= {name: content[name] | value for name, value in changes.items()}
    return json.dumps(content).encode()


FAMILY = data(tokenizer())


def test_other_bytes_mean_the_same() -> None:
    old = json.loads(FAMILY)
    old["model"]["merges"] = [" ".join(pair) for pair in old["model"]["merges"]]
    for name in ("dropout", "fuse_unk", "byte_fallback", "ignore_merges"):
        del old["model"][name]
    old["model"]["continuing_subword_prefix"] = ""
    del old["pre_tokenizer"]["use_regex"], old["post_processor"], old["decoder"]
    old["truncation"] = {"max_length": 8}
    comparison = compare(json.dumps(old).encode(), FAMILY)
    assert comparison.has_same_tokens
    assert comparison.other_parts == []


def test_added_tokens_are_named() -> None:
    comparison = compare(data(tokenizer(added=("<x>", "<y>"))), FAMILY)
    comparison.check_words()
    comparison.check_parts()
    assert comparison.more == {"<x>": 6, "<y>": 7}
    assert not comparison.has_same_tokens


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (
            tokenizer(vocabulary={**VOCABULARY, "z": 3} | {"c": 6}),
            "other words for 1 numbers: 3 is 'z', the family's seed has 'c'",
        ),
        (
            tokenizer(vocabulary={**VOCABULARY, "c": 6}),
            "1 tokens at other numbers: 'c' is 6, the family's seed has it at 3",
        ),
        (
            tokenizer(vocabulary={**VOCABULARY, "z": 6}),
            "1 tokens more in its vocabulary than the family's: 'z'",
        ),
        (
            tokenizer(vocabulary={t: n for t, n in VOCABULARY.items() if n < 5}, merges=MERGES[:1]),
            "1 tokens fewer in its vocabulary than the family's: 'abc'",
        ),
    ],
)
def test_other_words_are_refused(own: Tokenizer, reason: str) -> None:
    with pytest.raises(Incompatible) as refused:
        compare(data(own), FAMILY).check_words()
    assert reason in refused.value.detail


@pytest.mark.parametrize(
    ("own", "part"),
    [
        (data(tokenizer(merges=[("a", "b")])), "merges or settings"),
        (data(tokenizer(), normalizer={"type": "NFD"}), "normalizer"),
        (data(tokenizer(), pre_tokenizer={"add_prefix_space": True}), "pre_tokenizer"),
    ],
)
def test_another_way_to_cut_is_refused(own: bytes, part: str) -> None:
    comparison = compare(own, FAMILY)
    comparison.check_words()
    with pytest.raises(Incompatible, match=f"cuts texts in another way .*: {part}"):
        comparison.check_parts()


def test_another_frame_cuts_in_the_same_way() -> None:
    content = json.loads(FAMILY)
    content["decoder"] = {"type": "Fuse"}
    comparison = compare(json.dumps(content).encode(), FAMILY)
    comparison.check_parts()
    assert comparison.has_same_tokens


@pytest.mark.parametrize("own", [b"{}", b"[]", b"\xff", b'{"model": {"vocab": [1]}}'])
def test_what_is_no_tokenizer_is_refused(own: bytes) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"tokenizer\.json is no tokenizer"):
        compare(own, FAMILY)
