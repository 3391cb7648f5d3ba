"""What an assembled mix refers to, what it writes, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from assembler import upcycle
from assembler.network import Network
from engine import tensors
from registry.architecture import Architecture
from registry.blobs import LocalBlobs
from registry.errors import Incompatible
from registry.manifests import Manifest, TensorEntry
from tests import tiny
from tests.assembler import mixes

QUERY = "model.layers.1.self_attn.q_proj.weight"
QUERY_SHAPE = tiny.ARCHITECTURE.tensor_shapes()[QUERY]


def test_ffns_are_references(blobs: LocalBlobs) -> None:
    mix = mixes.store_mix(blobs)
    for part in ("gate_proj", "up_proj", "down_proj"):
        name = f"model.layers.1.mlp.{part}.weight"
        seed = tiny.store_manifest(blobs).tensors[name]
        assert mix.tensors[name.replace("mlp", "mlp.shared_expert")] == seed
        for number in range(mixes.NUM_EXPERTS):
            expert = tiny.store_manifest(blobs, expert=number + 1).tensors[name]
            assert mix.tensors[name.replace("mlp", f"mlp.experts.{number}")] == expert


def test_equal_tensors_are_not_averaged(blobs: LocalBlobs) -> None:
    mix, seed = mixes.store_mix(blobs), tiny.store_manifest(blobs)
    written = mix.digests() - seed.digests() - mixes.projection(blobs).digests()
    for expert in range(1, mixes.NUM_EXPERTS + 1):
        written -= tiny.store_manifest(blobs, expert=expert).digests()
    assert len(written) == 1 + tiny.ARCHITECTURE.num_hidden_layers  # embeddings and folded rows


def test_different_attention_is_averaged(blobs: LocalBlobs) -> None:
    experts = [_with_query(blobs, value=value) for value in (1.0, 2.0, 6.0)]
    mix = upcycle.assemble(
        mixes.recipe(),
        seed=tiny.store_manifest(blobs),
        experts=experts,
        projection=mixes.projection(blobs),
        rows=[torch.zeros(3, 32)] * 2,
        domain_embeddings=mixes.domain_embeddings(),
        blobs=blobs,
    )
    mean = tensors.read(blobs, mix.tensors[QUERY])
    assert torch.equal(mean, torch.full(QUERY_SHAPE, 3.0, dtype=torch.bfloat16))


def test_config_tells_the_recipe(blobs: LocalBlobs) -> None:
    mix = mixes.store_mix(blobs)
    assert mix.config["model_type"] == "nexus"
    assert mix.config["expert_names"] == ["expert-1", "expert-2", "expert-3"]
    assert mix.config["eos_token_id"] == 2
    assert mix.files == tiny.store_manifest(blobs).files
    shapes = {name: entry.shape for name, entry in mix.tensors.items()}
    assert shapes == Architecture.from_config(mix.config).tensor_shapes()


def test_merge_is_the_mean_with_the_seed(blobs: LocalBlobs) -> None:
    merged = upcycle.merge([_with_query(blobs, value=value) for value in (0.0, 1.0, 5.0)], blobs)
    mean = tensors.read(blobs, merged.tensors[QUERY])
    assert torch.equal(mean, torch.full(QUERY_SHAPE, 2.0, dtype=torch.bfloat16))
    assert Network.from_manifest(merged, blobs, dtype=torch.bfloat16)


def test_an_expert_of_another_shape_is_refused(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    other = replace(seed, tensors=seed.tensors | {QUERY: TensorEntry("BF16", (3, 3), "0" * 64)})
    with pytest.raises(Incompatible, match=QUERY):
        upcycle.merge([seed, other], blobs)


def _with_query(blobs: LocalBlobs, *, value: float) -> Manifest:
    seed = tiny.store_manifest(blobs)
    query = tensors.write(blobs, torch.full(QUERY_SHAPE, value, dtype=torch.bfloat16))
    return replace(seed, tensors=seed.tensors | {QUERY: query})
