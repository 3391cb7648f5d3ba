"""Recipes give networks with as many parameters as the papers count."""

from dataclasses import replace
from typing import Any

import pytest

from assembler.recipes import presets
from assembler.recipes.mix_architecture import mixture_of
from assembler.recipes.recipe import Preset, Recipe
from registry.checkpoints.architecture import Architecture
from registry.errors import Incompatible
from tests.assembler import tiny_mixes

# The smaller seed of BAM (arXiv 2408.08274, table 9), with parallel blocks and untied embeddings.
BAM_SEED = Architecture(
    vocab_size=256_000,
    hidden_size=1024,
    intermediate_size=2048,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=128,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=2048,
    tie_word_embeddings=False,
    parallel_block=True,
)
ROUTER = 4 * 1024
SHARED_KV = 2 * 1024 * 1024
NUM_LAYERS = 6


def paper_mix(preset: Preset, **changes: Any) -> Architecture:
    """Return the mixture of three experts and the seed that a preset makes."""
    recipe = tiny_mixes.recipe(preset=preset, **changes)
    return mixture_of(recipe, BAM_SEED, vector_size=384)


def test_the_dense_seed_counts_as_in_the_paper() -> None:
    assert BAM_SEED.num_parameters == BAM_SEED.num_active_parameters == 587_209_728


def test_btx_counts_as_in_the_paper() -> None:
    mix = paper_mix("btx", experts_per_token=1, norm_topk_prob=False)
    assert mix.num_parameters == 700_480_512
    assert mix.num_active_parameters == 587_234_304


def test_btx_with_six_experts_counts_as_its_shapes_do() -> None:
    """The paper prints the total of four experts here; the expected number is that of six."""
    recipe = Recipe(
        **presets.assembly("btx").model_dump(),
        family="tiny",
        experts=tuple(f"expert-{i}@1" for i in range(5)),
        finetune=presets.finetune("btx", num_experts=5),
    )
    assert mixture_of(recipe, BAM_SEED, vector_size=384).num_parameters == 775_990_272


def test_bam_counts_as_in_the_paper() -> None:
    mix = paper_mix("bam")
    assert mix.num_parameters == 776_002_560
    # The paper counts both routers in the total, but only one of them as active.
    assert mix.num_active_parameters - NUM_LAYERS * ROUTER == 662_731_776


def test_bam_with_shared_keys_and_values_counts_as_in_the_paper() -> None:
    mix = paper_mix("bam-shared-kv")
    assert mix.num_parameters == 738_253_824
    # Here the paper does not count the shared keys and values as active either.
    active = mix.num_active_parameters - NUM_LAYERS * (ROUTER + SHARED_KV)
    assert active == 612_400_128


@pytest.mark.parametrize("preset", ["bam", "bam-shared-kv"])
def test_attention_experts_that_were_not_chosen_count_since_they_are_computed(
    preset: Preset,
) -> None:
    soft, hard = (paper_mix(preset, attention_experts_per_token=number) for number in (0, 1))
    assert hard.num_active_parameters == soft.num_active_parameters


def test_a_router_mlp_is_as_large_as_a_projection() -> None:
    nexus, mlp = (paper_mix(preset).tensor_shapes() for preset in ("nexus", "mlp"))
    size = {
        kind: sum(
            rows * columns
            for name, (rows, *rest) in shapes.items()
            for columns in rest
            if f"layers.0.mlp.gate.{what}" in name
        )
        for kind, shapes, what in (("nexus", nexus, "projection"), ("mlp", mlp, ""))
    }
    assert size["mlp"] == pytest.approx(size["nexus"], rel=0.001)


def test_a_recipe_that_contradicts_itself_is_refused() -> None:
    recipe = tiny_mixes.recipe(norm_topk_prob=True, experts_per_token=9)
    with pytest.raises(Incompatible) as caught:
        mixture_of(recipe, replace(BAM_SEED), vector_size=384)
    assert [p.pointer for p in caught.value.problems] == [
        "/config/num_experts_per_tok",
        "/config/norm_topk_prob",
    ]
