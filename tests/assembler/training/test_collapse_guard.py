"""A training stops at a number that is not finite, and when all domains go to one expert."""

import math

import pytest
import torch

from assembler.training.collapse_guard import COLLAPSED_STEPS, CollapseGuard, collapsed_to
from assembler.training.train_step import StepResult
from registry.errors import StepFailed

NAMES = ("law", "code")


def result(
    counts: list[list[float]], *, loss: float = 1.0, gradient_norm: float = 1.0
) -> StepResult:
    return StepResult(loss=loss, gradient_norm=gradient_norm, routing_counts=torch.tensor(counts))


@pytest.mark.parametrize(
    ("loss", "gradient_norm", "what"),
    [(math.nan, 1.0, "loss is nan"), (1.0, math.inf, "gradient is inf")],
)
def test_a_number_that_is_not_finite_stops_the_training(
    loss: float, gradient_norm: float, what: str
) -> None:
    guard = CollapseGuard(NAMES, saved_step=4)
    with pytest.raises(StepFailed) as failed:
        guard.check(7, result([[3, 1], [0, 4]], loss=loss, gradient_norm=gradient_norm))
    for fragment in (what, "step 7", "37.5% to law", "62.5% to code", "checkpoint: of step 4"):
        assert fragment in failed.value.detail


def test_a_collapse_needs_many_steps() -> None:
    guard = CollapseGuard(NAMES, saved_step=0)
    for step in range(1, COLLAPSED_STEPS):
        guard.check(step, result([[0, 8], [0, 8]]))
    with pytest.raises(StepFailed, match=r"collapsed to code.*checkpoint: none"):
        guard.check(COLLAPSED_STEPS, result([[0, 8], [0, 8]]))


def test_one_step_with_both_experts_is_no_collapse() -> None:
    guard = CollapseGuard(NAMES, saved_step=0)
    guard.check(1, result([[8, 0], [0, 8]]))
    for step in range(2, COLLAPSED_STEPS + 1):
        guard.check(step, result([[0, 8], [0, 8]]))


@pytest.mark.parametrize(
    ("counts", "expert"),
    [
        ([[0.0, 5.0], [0.0, 5.0]], 1),
        ([[5.0, 0.0], [0.0, 5.0]], None),
        # A single domain may well have a single expert.
        ([[5.0, 0.0], [0.0, 0.0]], None),
        ([[98.0, 2.0], [100.0, 0.0]], None),
    ],
)
def test_a_collapse_needs_all_domains(counts: list[list[float]], expert: int | None) -> None:
    assert collapsed_to(torch.tensor(counts)) == expert
