"""Policies of families are numbered and checked, and recipes copy their fields."""

from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from assembler.recipes import family_policies
from assembler.recipes.recipe import Recipe
from engine.gates.policy import Policy
from registry.blobs.blobs import LocalBlobs
from registry.errors import InvalidInput, NotFound
from tests.assembler import rows


def policy_of(session: Session, blobs: LocalBlobs, **gates: Any) -> Policy:
    wish = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"], gates=gates)
    return Recipe.model_validate(mixes.request(session, blobs, wish).recipe).gates


def test_versions_are_numbered_and_equal_ones_are_stored_once(
    session: Session, blobs: LocalBlobs
) -> None:
    rows.add_family(session, blobs)
    first = family_policies.put(session, "tiny", {"prefix_tokens": 9})
    assert first.number == 1
    assert family_policies.put(session, "tiny", {"prefix_tokens": 9}).number == 1
    assert family_policies.put(session, "tiny", {}).number == 2
    assert [policy.number for policy in family_policies.find_all(session, "tiny")] == [2, 1]


def test_a_recipe_keeps_the_policy_of_its_request(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    assert policy_of(session, blobs) == Policy()
    family_policies.put(session, "tiny", {"prefix_tokens": 9, "served": {"min_fdt_50": 5}})
    # The request overrides single fields of the policy.
    gates = policy_of(session, blobs, served={"min_fdt_75": 8})
    assert (gates.prefix_tokens, gates.served.min_fdt_50, gates.served.min_fdt_75) == (9, 5, 8)
    assert Recipe.model_validate(mixes.get(session, "mine@1").recipe).gates == Policy()


def test_all_wrong_fields_are_named_together(session: Session, blobs: LocalBlobs) -> None:
    rows.add_family(session, blobs)
    changes = {"color": "red", "base": {"max_perplexity_ratio": -1, "depth": 3}, "served": 7}
    with pytest.raises(InvalidInput) as refused:
        family_policies.put(session, "tiny", changes)
    assert {problem.pointer for problem in refused.value.problems} == {
        "/color",
        "/base/max_perplexity_ratio",
        "/base/depth",
        "/served",
    }
    [depth] = [p for p in refused.value.problems if p.pointer == "/base/depth"]
    assert "there are min_equal_share," in depth.detail


def test_a_policy_needs_a_family(session: Session) -> None:
    with pytest.raises(NotFound):
        family_policies.put(session, "nobody", {})
