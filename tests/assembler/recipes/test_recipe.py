"""A recipe has a digest, counts its experts, and reports contradicting fields."""

from typing import Any, get_args

import pytest

from assembler.recipes.recipe import KINDS, Preset, Recipe, Training
from tests.assembler import tiny_mixes


@pytest.mark.parametrize(("tokens", "steps"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_the_last_step_may_read_more_tokens(tokens: int, steps: int) -> None:
    assert Training(tokens=tokens, batch_size=2, sequence_length=8).num_steps == steps


def test_equal_requests_have_equal_digests() -> None:
    recipe = tiny_mixes.recipe()
    assert Recipe.model_validate_json(recipe.model_dump_json()).digest == recipe.digest
    assert tiny_mixes.recipe(seed=1).digest != recipe.digest
    assert tiny_mixes.recipe(experts=(2, 1, 3)).digest != recipe.digest


def test_without_a_shared_expert_the_seed_is_routed() -> None:
    assert tiny_mixes.recipe().num_experts == 3
    assert tiny_mixes.recipe(preset="btx").num_experts == 4
    merge = tiny_mixes.recipe(preset="merge")
    assert (merge.kind, merge.num_experts) == ("dense_merge", 0)
    assert tiny_mixes.recipe().domains == ("expert-1", "expert-2", "expert-3")


def test_the_kind_follows_from_the_preset_and_is_not_stored() -> None:
    assert set(KINDS) == set(get_args(Preset))
    assert "kind" not in tiny_mixes.recipe().model_dump()


def test_a_recipe_from_before_the_scale_of_routers_keeps_its_digest() -> None:
    recipe = tiny_mixes.recipe()
    assert "router_scale" not in recipe.model_dump(mode="json")
    assert recipe.model_copy(update={"router_scale": 0.5}).digest != recipe.digest


def test_a_recipe_from_before_the_regression_keeps_its_digest() -> None:
    recipe = tiny_mixes.recipe(averaging="mean")
    assert "averaging" not in recipe.model_dump(mode="json")
    assert Recipe.model_validate(recipe.model_dump()).averaging == "mean"
    assert tiny_mixes.recipe().digest != recipe.digest


def test_a_routed_seed_is_averaged_too_so_there_the_mean_is_taken() -> None:
    assert tiny_mixes.recipe().averages_by_regression
    routed = tiny_mixes.recipe(shared_expert=False, combine="sum")
    assert list(routed.contradictions()) == []
    assert not routed.averages_by_regression
    assert not tiny_mixes.recipe(averaging="mean").averages_by_regression


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"experts_per_token": 3}, []),
        ({"experts_per_token": 4}, ["/experts_per_token"]),
        ({"attention_experts_per_token": 4}, ["/attention_experts_per_token"]),
        ({"shared_expert": False}, ["/combine"]),
        ({"norm_topk_prob": True}, ["/norm_topk_prob"]),
        ({"router_init": "dume"}, ["/router_init"]),
        ({"router": "linear", "router_init": "dume", "router_scale": 10}, []),
        ({"router": "linear", "router_init": "random", "router_scale": 0.5}, ["/router_scale"]),
    ],
)
def test_contradicting_fields_are_named(changes: dict[str, Any], pointers: list[str]) -> None:
    found = tiny_mixes.recipe(**changes).contradictions()
    assert [problem.pointer for problem in found] == pointers


def test_a_mean_has_no_contradicting_routers() -> None:
    assert list(tiny_mixes.recipe(preset="merge", experts_per_token=9).contradictions()) == []
    [problem] = tiny_mixes.recipe(preset="merge", averaging="regression").contradictions()
    assert problem.pointer == "/averaging"


@pytest.mark.parametrize(
    ("changes", "states", "encoder"),
    [
        ({}, True, False),
        ({"router_init": "random"}, False, True),
        ({"router": "linear", "router_init": "documents"}, False, False),
        ({"router": "linear"}, True, False),
    ],
)
def test_the_source_of_router_rows(changes: dict[str, Any], states: bool, encoder: bool) -> None:
    recipe = tiny_mixes.recipe(**changes)
    assert (recipe.embeds_with_states, recipe.embeds_with_encoder) == (states, encoder)
