"""Moments are stored in one blob and read one by one."""

from dataclasses import replace

import numpy as np
import pytest

from assembler.routing import input_moments
from assembler.routing.input_moments import NUM_DIRECTIONS, InputMoments
from registry.blobs.blobs import LocalBlobs
from registry.errors import NotFound
from tests import tiny

ATTENTION = "model.layers.0.self_attn.input"


def test_moments_are_found_by_the_names_of_inputs(blobs: LocalBlobs) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    digest = input_moments.write(blobs, {"a": rows, "b": rows[0]})
    assert digest == input_moments.write(blobs, {"b": rows[0], "a": rows})
    moments = InputMoments.of(blobs, digest)
    found = moments.find("a")
    assert found is not None
    assert np.array_equal(found, rows)
    assert moments.find("c") is None


def test_lost_moments_are_not_found(blobs: LocalBlobs) -> None:
    with pytest.raises(NotFound):
        InputMoments.of(blobs, "0" * 64)


def test_each_input_has_a_shape() -> None:
    dense = replace(tiny.ARCHITECTURE, hidden_size=8)
    shapes = input_moments.shapes(dense)
    assert shapes[ATTENTION] == (9, 8)
    assert shapes["model.layers.1.self_attn.o_proj.input"] == (1 + NUM_DIRECTIONS, 128)
    assert shapes["lm_head.input"] == (9, 8)
    assert len(shapes) == 5
    untied = input_moments.shapes(replace(dense, tie_word_embeddings=False))
    assert untied == shapes
