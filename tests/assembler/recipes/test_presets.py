"""Every preset gives a recipe without contradictions, and differences are listed."""

import pytest

from assembler.recipes import presets
from assembler.recipes.presets import DEFAULT, DESCRIPTIONS, PRESETS, TOKENS_PER_EXPERT
from assembler.recipes.recipe import Preset
from tests.assembler import tiny_mixes


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_no_contradictions(preset: Preset) -> None:
    recipe = tiny_mixes.recipe(preset=preset, experts=(1, 2))
    assert recipe.preset == preset
    assert list(recipe.contradictions()) == []
    assert DESCRIPTIONS[preset].endswith(".")


def test_presets_of_papers_are_as_published() -> None:
    btx = presets.assembly("btx")
    assert (btx.router, btx.combine, btx.experts_per_token) == ("linear", "sum", 2)
    assert (btx.shared_expert, btx.norm_topk_prob) == (False, True)
    assert presets.assembly("bam").attention == "experts"
    assert presets.finetune("nexus-paper", num_experts=2).load_balance_weight == 0.05


def test_tokens_of_a_finetune_grow_with_the_experts() -> None:
    assert presets.finetune("nexus", num_experts=3).tokens == 3 * TOKENS_PER_EXPERT
    assert presets.finetune("merge", num_experts=3).tokens == 0


def test_differences_from_the_default_are_listed() -> None:
    assert presets.changed(DEFAULT) == {}
    assert presets.changed("mlp") == {"router": "mlp", "router_init": "random"}
    of_btx = presets.changed("btx")
    assert of_btx["experts_per_token"] == 2
    assert of_btx["finetune.router_learning_rate"] == 1e-4
    assert "finetune.tokens" not in of_btx
    assert of_btx["averaging"] == "mean"


def test_an_unknown_preset_is_refused() -> None:
    assert presets.find("btx") == ("btx", [])
    preset, (problem,) = presets.find("BTX")
    assert preset == DEFAULT
    assert (problem.pointer, problem.detail.split(";")[0]) == ("/preset", "'BTX' is no preset")


def test_changes_are_applied_to_a_preset() -> None:
    assembly, problems = presets.read_assembly("btx", {"experts_per_token": 1, "router": "tree"})
    assert (assembly.experts_per_token, assembly.router) == (1, "linear")
    assert [problem.pointer for problem in problems] == ["/router"]
    finetune, problems = presets.read_finetune("nexus", {"tokens": -1, "seed": 3}, num_experts=2)
    assert (finetune.tokens, finetune.seed) == (2 * TOKENS_PER_EXPERT, 3)
    assert [problem.pointer for problem in problems] == ["/finetune/tokens"]


def test_a_compression_is_read_from_its_fields() -> None:
    assert presets.read_compression(None) == (None, [])
    compression, problems = presets.read_compression({"min_fdt_75": 8})
    assert compression is not None
    assert (compression.min_fdt_75, problems) == (8, [])
    compression, problems = presets.read_compression({"min_fdt_75": 8, "size": 1})
    assert compression is None
    assert [problem.pointer for problem in problems] == ["/compress/size"]
