"""The initial rows of a mix, for every kind of router."""

import numpy as np
import pytest
import torch

from assembler.network.moe import project
from assembler.recipes.recipe import Preset
from assembler.routing import router_init, router_rows
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.errors import Incompatible
from tests.assembler import tiny_mixes

ROWS = "model.layers.1.mlp.gate.weight"


def test_numpy_projection_equals_the_networks(blobs: LocalBlobs) -> None:
    random = np.random.default_rng(0)
    embeddings, w1, w2 = (
        random.standard_normal(shape, np.float32) for shape in ((3, 16), (64, 16), (32, 32))
    )
    expected = project(*map(torch.from_numpy, (embeddings, w1, w2)))
    stored = [numpy_tensors.write(blobs, weight, dtype="F32") for weight in (w1, w2)]
    rows = torch.from_numpy(router_rows.project(embeddings, *stored, blobs=blobs))
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own_weight", [0.0, 0.5])
def test_a_row_discounts_variation_within_its_own_domain(own_weight: float) -> None:
    """The row is `(S + w U'U)^-1 d`; the embedding is scaled so that W1 maps it to length 1."""
    random = np.random.default_rng(0)
    whitening = random.standard_normal((8, 8), np.float32)
    mean, directions = (random.standard_normal(shape, np.float32) for shape in ((1, 8), (1, 3, 8)))
    embedding = router_rows.router_embeddings(
        mean, directions, whiten=lambda x: x @ whitening.T, own_weight=own_weight
    )
    row = whitening.T @ whitening @ embedding[0, :-1]
    within = np.linalg.inv(whitening.T @ whitening)
    expected = np.linalg.solve(within + own_weight * directions[0].T @ directions[0], mean[0])
    cosine = row @ expected / np.linalg.norm(row) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1, abs=1e-4)
    assert np.linalg.norm(whitening @ embedding[0, :-1]) == pytest.approx(1, abs=1e-4)
    assert embedding[0, -1] == 1


@pytest.mark.parametrize("preset", ["linear", "btx", "bam"])
def test_a_random_row_depends_on_its_expert_alone(blobs: LocalBlobs, preset: Preset) -> None:
    """Neither the other experts nor the order changes the row drawn for an expert."""
    alone, among = (
        numpy_tensors.read(
            blobs, tiny_mixes.store_mix(blobs, preset=preset, experts=experts).tensors[ROWS]
        )
        for experts in ((2, 3), (1, 3, 2))
    )
    assert np.array_equal(alone[0], among[2])
    assert not np.array_equal(alone[0], alone[1])


def test_another_seed_draws_other_rows(blobs: LocalBlobs) -> None:
    one, other = (tiny_mixes.store_mix(blobs, preset="linear", seed=seed) for seed in (0, 1))
    assert one.tensors[ROWS] != other.tensors[ROWS]


def test_a_random_projection_routes_nearly_evenly(blobs: LocalBlobs) -> None:
    family = tiny_mixes.projection(blobs)
    mix = tiny_mixes.store_mix(blobs, preset="nexus-paper")
    name = "model.layers.0.mlp.gate.projection.0.weight"
    assert mix.tensors[name] != family.tensors[name]
    # Its input is the encoder's vector with a constant.
    assert mix.tensors[name].shape == (64, tiny_mixes.VECTOR_SIZE + 1)
    assert np.abs(numpy_tensors.read(blobs, mix.tensors[ROWS])).max() < 0.5


def test_document_rows_differ_by_domain_and_are_shared_by_blocks(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs, preset="flexolmo")
    assert mix.tensors[ROWS] == mix.tensors[ROWS.replace("1", "0", 1)]
    rows = numpy_tensors.read(blobs, mix.tensors[ROWS])
    assert 0.1 < np.linalg.norm(rows[0]) <= 1.0
    assert not np.allclose(rows[0], rows[1])


@pytest.mark.parametrize("source", ["documents", "dume"])
def test_a_nexus_router_refuses_rows_from_documents(blobs: LocalBlobs, source: str) -> None:
    with pytest.raises(Incompatible, match="projection"):
        tiny_mixes.store_mix(blobs, router_init=source)


@pytest.mark.parametrize("source", ["documents", "dume"])
def test_a_scale_makes_rows_shorter(blobs: LocalBlobs, source: str) -> None:
    whole, half = (
        numpy_tensors.read(
            blobs,
            tiny_mixes.store_mix(
                blobs, preset="linear", router_init=source, router_scale=scale
            ).tensors[ROWS],
        )
        for scale in (1.0, 0.5)
    )
    np.testing.assert_allclose(half, whole / 2, rtol=0.02, atol=1e-3)


def test_attention_routers_are_even_without_better_rows(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs, attention="experts")
    gate = numpy_tensors.read(blobs, mix.tensors["model.layers.0.self_attn.gate.weight"])
    assert not gate.any()


def test_a_routed_seed_has_a_zero_row(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs, shared_expert=False, combine="sum")
    rows = numpy_tensors.read(blobs, mix.tensors[ROWS])
    assert len(rows) == 4
    assert not rows[3].any()


@pytest.mark.parametrize(
    ("rows", "expected"), [(np.eye(3), 1.0), (np.array([[1.0, 0], [1, 0.02]]), 100.0)]
)
def test_condition_number_of_rows(rows: numpy_tensors.Floats, expected: float) -> None:
    assert router_init.condition_number(rows.astype(np.float32)) == pytest.approx(
        expected, rel=0.01
    )
