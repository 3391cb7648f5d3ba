"""Lengths beyond the context of a mix are reported before anything is made."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import context_length
from assembler.mixes.new_mix import NewMix
from assembler.planning import plan
from assembler.recipes.recipe import Recipe
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import rows

CONTEXT = tiny.ARCHITECTURE.max_position_embeddings


def pointers(**fields: Any) -> list[str]:
    recipe = Recipe.model_validate(
        {"family": "tiny", "experts": ["a@1", "b@1"], "finetune": {"tokens": 0}, **fields}
    )
    return [problem.pointer for problem in context_length.problems(recipe, tiny.ARCHITECTURE)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"gates": {"prefix_tokens": CONTEXT - 33}}, []),
        ({"gates": {"prefix_tokens": CONTEXT - 32}}, ["/gates/prefix_tokens"]),
        ({"gates": {"completion_tokens": CONTEXT}}, ["/gates/completion_tokens"]),
        ({"finetune": {"tokens": 1, "sequence_length": CONTEXT}}, []),
        (
            {"finetune": {"tokens": 1, "sequence_length": CONTEXT + 1}},
            ["/finetune/sequence_length"],
        ),
        ({"finetune": {"tokens": 0, "sequence_length": CONTEXT + 1}}, []),
        (
            {"compress": {"min_fdt_75": 8, "prefix_tokens": CONTEXT}},
            ["/compress/prefix_tokens"],
        ),
    ],
)
def test_what_does_not_fit_is_reported(fields: dict[str, Any], expected: list[str]) -> None:
    assert pointers(**fields) == expected


def test_a_longer_context_takes_longer_texts() -> None:
    recipe = Recipe.model_validate(
        {
            "family": "tiny",
            "experts": ["a@1", "b@1"],
            "finetune": {"tokens": 0},
            "gates": {"prefix_tokens": 4000},
        }
    )
    longer = replace(tiny.ARCHITECTURE, max_position_embeddings=8192)
    assert list(context_length.problems(recipe, longer)) == []


def test_a_plan_reports_it(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    spec = NewMix(
        name="mine",
        family="tiny",
        experts=["expert-1", "expert-2"],
        gates={"prefix_tokens": CONTEXT},
    )
    planned = plan.plan(session, blobs, spec)
    [problem] = [p for p in planned.problems if p.pointer == "/gates/prefix_tokens"]
    assert "the context of the mix has room for 255" in problem.detail
