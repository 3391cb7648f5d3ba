"""An assembled mix refers to existing tensors, writes new ones, and refuses wrong experts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from assembler.assembly import upcycle
from assembler.assembly.regression import Member
from assembler.network.model import Network
from assembler.recipes.mix_architecture import mixture_of
from assembler.recipes.presets import PRESETS
from assembler.recipes.recipe import Preset, Recipe
from assembler.routing.router_init import Routers
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import is_projection
from registry.errors import Incompatible
from tests import tiny
from tests.assembler import tiny_mixes

QUERY = "model.layers.1.self_attn.q_proj.weight"
QUERY_SHAPE = tiny.ARCHITECTURE.tensor_shapes()[QUERY]


def test_ffns_refer_to_the_tensors_of_experts(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs)
    for part in ("gate_proj", "up_proj", "down_proj"):
        name = f"model.layers.1.mlp.{part}.weight"
        seed = tiny.store_manifest(blobs).tensors[name]
        assert mix.tensors[name.replace("mlp", "mlp.shared_expert")] == seed
        for number in range(tiny_mixes.NUM_EXPERTS):
            expert = tiny.store_manifest(blobs, expert=number + 1).tensors[name]
            assert mix.tensors[name.replace("mlp", f"mlp.experts.{number}")] == expert


def test_equal_tensors_are_not_averaged(blobs: LocalBlobs) -> None:
    mix, seed = tiny_mixes.store_mix(blobs), tiny.store_manifest(blobs)
    written = mix.digests() - seed.digests() - tiny_mixes.projection(blobs).digests()
    for expert in range(1, tiny_mixes.NUM_EXPERTS + 1):
        written -= tiny.store_manifest(blobs, expert=expert).digests()
    # Only domain embeddings and the router rows of every layer are new.
    assert len(written) == 1 + tiny.ARCHITECTURE.num_hidden_layers


def test_different_attention_is_averaged(blobs: LocalBlobs) -> None:
    mix = _upcycled(tiny_mixes.recipe(), blobs, queries=(1.0, 2.0, 6.0))
    assert torch.equal(_read(mix, QUERY, blobs), torch.full(QUERY_SHAPE, 3.0).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_mix_has_the_dtype_of_its_seed(blobs: LocalBlobs, dtype: torch.dtype) -> None:
    mix = _upcycled(tiny_mixes.recipe(), blobs, queries=(1.0, 2.0, 6.0), dtype=dtype)
    assert torch.equal(_read(mix, QUERY, blobs), torch.full(QUERY_SHAPE, 3.0, dtype=dtype))
    rows = _read(mix, "model.layers.0.mlp.gate.weight", blobs)
    assert rows.dtype == dtype
    assert Network.from_manifest(mix, blobs, dtype=torch.float32)


def test_a_routed_seed_takes_part_in_the_mean(blobs: LocalBlobs) -> None:
    mix = _upcycled(tiny_mixes.recipe(preset="btx"), blobs, queries=(1.0, 2.0, 6.0))
    seed = tiny.store_manifest(blobs)
    expected = (9.0 + _read(seed, QUERY, blobs).float()) / 4
    torch.testing.assert_close(_read(mix, QUERY, blobs).float(), expected, rtol=0.01, atol=0)
    assert mix.architecture.expert_names == ("expert-1", "expert-2", "expert-3", "seed")
    assert (
        mix.tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
        == (seed.tensors["model.layers.0.mlp.up_proj.weight"])
    )
    assert not any("shared_expert" in name for name in mix.tensors)


@pytest.mark.parametrize(("preset", "own"), [("bam", "qkvo"), ("bam-shared-kv", "qo")])
def test_attention_becomes_experts(blobs: LocalBlobs, preset: Preset, own: str) -> None:
    mix, expert = tiny_mixes.store_mix(blobs, preset=preset), tiny.store_manifest(blobs, expert=2)
    for part in "qkvo":
        dense = expert.tensors[f"model.layers.1.self_attn.{part}_proj.weight"]
        name = f"model.layers.1.self_attn.experts.1.{part}_proj.weight"
        assert mix.tensors.get(name) == (dense if part in own else None)


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "merge"])
def test_every_preset_runs(blobs: LocalBlobs, preset: Preset) -> None:
    mix = tiny_mixes.store_mix(blobs, preset=preset)
    network = Network.from_manifest(mix, blobs, dtype=torch.float32)
    assert network(torch.arange(12).view(2, 6)).isfinite().all()


def test_the_config_describes_the_recipe(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs)
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


def _upcycled(
    recipe: Recipe,
    blobs: LocalBlobs,
    *,
    queries: Sequence[float],
    dtype: torch.dtype = torch.bfloat16,
) -> Manifest:
    """Assemble three experts whose query projections are constant and differ from the seed's."""
    mix = mixture_of(recipe, tiny.ARCHITECTURE, vector_size=tiny_mixes.VECTOR_SIZE)
    rows = np.zeros((mix.num_experts, 32), np.float32)
    names = [name for name in mix.tensor_shapes() if name.endswith(".mlp.gate.weight")]
    family = tiny_mixes.projection(blobs)
    return upcycle.upcycle(
        recipe,
        mix,
        seed=_cast(tiny.store_manifest(blobs), blobs, dtype),
        experts=[
            Member(checkpoint=_cast(_with_query(blobs, value=value), blobs, dtype))
            for value in queries
        ],
        routers=Routers(
            rows={name: rows for name in names},
            shared={n: e for n, e in family.tensors.items() if is_projection(n)},
            domain_embeddings=np.zeros((2, mix.num_experts, 33), np.float32),
        ),
        blobs=blobs,
    )


def _cast(manifest: Manifest, blobs: LocalBlobs, dtype: torch.dtype) -> Manifest:
    entries = {
        name: tensors.write(blobs, tensors.read(blobs, entry).to(dtype))
        for name, entry in manifest.tensors.items()
    }
    return replace(manifest, tensors=entries)


def _read(manifest: Manifest, name: str, blobs: LocalBlobs) -> torch.Tensor:
    return tensors.read(blobs, manifest.tensors[name])


def _with_query(blobs: LocalBlobs, *, value: float) -> Manifest:
    seed = tiny.store_manifest(blobs)
    query = tensors.write(blobs, torch.full(QUERY_SHAPE, value, dtype=torch.bfloat16))
    return replace(seed, tensors=seed.tensors | {QUERY: query})
