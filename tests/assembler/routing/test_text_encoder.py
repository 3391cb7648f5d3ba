"""The sentence encoder: vectors of length 1, close for similar texts, equal to transformers'."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from assembler.routing.embedder import embedder_folder
from assembler.routing.text_encoder import BATCH_SIZE, MAX_TOKENS, Encoder

TEXTS = ["The cat sat on the mat.", "A kitten rests upon a rug.", "def f(x): return x + 1 " * 40]


def test_vectors_have_length_one_and_are_close_for_similar_texts() -> None:
    vectors = Encoder().embed(TEXTS)
    assert vectors.shape == (3, 384)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_padding_changes_nothing() -> None:
    encoder = Encoder()
    alone = torch.cat([encoder.embed([text]) for text in TEXTS])
    assert encoder.embed(TEXTS) == pytest.approx(alone, abs=1e-5)


def test_vectors_equal_those_of_transformers_to_the_last_bit() -> None:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedder_folder())
    network = AutoModel.from_pretrained(embedder_folder()).eval()
    # Texts that are padded, texts that are cut, and one that fills more than a batch.
    long = [f"{number}: Grüße, 世界! fn main() {{}}\n" * 60 for number in range(BATCH_SIZE + 1)]
    for texts in (TEXTS, long, [*TEXTS, *long]):
        with torch.inference_mode():
            expected = torch.cat(
                [
                    _by_transformers(tokenizer, network, texts[start : start + BATCH_SIZE])
                    for start in range(0, len(texts), BATCH_SIZE)
                ]
            )
        assert torch.equal(Encoder().embed(texts), expected)


def test_an_embedding_does_not_load_transformers() -> None:
    code = (
        "import sys\n"
        "from assembler.routing.text_encoder import Encoder\n"
        "Encoder().embed(['a text'])\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_texts_are_counted() -> None:
    counts: list[tuple[int, int]] = []

    def on_texts(done: int, count: int) -> None:
        counts.append((done, count))

    Encoder().embed(["a text"] * (BATCH_SIZE + 1), on_texts=on_texts)
    assert counts == [(0, BATCH_SIZE + 1), (BATCH_SIZE, BATCH_SIZE + 1)]


def _by_transformers(tokenizer: Any, network: Any, texts: Sequence[str]) -> torch.Tensor:
    tokens = tokenizer(
        list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    states_BTM = network(**tokens).last_hidden_state
    mask_BT1 = tokens["attention_mask"][..., None]
    means_BM = (states_BTM * mask_BT1).sum(1) / mask_BT1.sum(1)
    return torch.nn.functional.normalize(means_BM, dim=-1)
