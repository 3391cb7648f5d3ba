"""The sentence encoder: vectors of length 1, close for similar texts, in any batch."""

import pytest
import torch

from assembler.routing.text_encoder import Encoder

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
