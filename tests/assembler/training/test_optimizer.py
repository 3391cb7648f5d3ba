"""The schedule of the learning rate, and groups of parameters with a rate of their own."""

import pytest
import torch

from assembler.recipes.recipe import Training
from assembler.training import optimizer
from assembler.training.optimizer import Clock, largest_change, learning_rate_factor, optimizer_of

RECIPE = Training(tokens=100 * 8, batch_size=1, sequence_length=8)


def test_the_rate_rises_over_a_tenth_and_falls_to_a_tenth() -> None:
    factors = [learning_rate_factor(RECIPE, step) for step in range(RECIPE.num_steps + 1)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_a_training_of_one_step_has_the_whole_rate() -> None:
    assert learning_rate_factor(Training(tokens=8, batch_size=1, sequence_length=8), 0) == 1


def test_parameters_of_one_rate_are_one_group() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    adam = optimizer_of(zip(parameters, (0.1, 0.2, 0.1), strict=True))
    assert [len(group["params"]) for group in adam.param_groups] == [2, 1]
    for factor in (0.5, 0.5):
        optimizer.set_learning_rates(adam, factor)
    assert [group["lr"] for group in adam.param_groups] == pytest.approx([0.05, 0.1])


def test_progress_counts_from_where_it_began() -> None:
    progress = Clock(RECIPE, first_step=90).progress(95, loss=2.0, expert_shares=(0.5, 0.5))
    assert (progress.step, progress.num_steps, progress.num_tokens) == (95, 100, 95 * 8)
    seconds_per_step = 8 / progress.tokens_per_second
    assert progress.eta_seconds == pytest.approx(5 * seconds_per_step)


@pytest.mark.parametrize("growth", [0.5, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("num_steps", [1, 40, 300])
def test_no_weight_moves_farther_than_the_bound(growth: float, num_steps: int) -> None:
    recipe = Training(tokens=num_steps * 8, batch_size=1, sequence_length=8)
    weight = torch.nn.Parameter(torch.zeros(1))
    adam = optimizer_of([(weight, 0.01)])
    for step in range(num_steps):
        optimizer.set_learning_rates(adam, learning_rate_factor(recipe, step))
        # Gradients of one sign move a weight the farthest, growing ones even more.
        weight.grad = torch.full((1,), min(growth**step, 1e12))
        adam.step()
    bound = largest_change(recipe, 0.01)
    assert 0 < -weight.item() <= 1.001 * bound
    if num_steps == 1:
        assert bound == pytest.approx(0.01)
