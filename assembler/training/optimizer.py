"""The optimizer, learning rates and progress reports of all training loops."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from assembler.compute_dtype import ComputingDtype
from assembler.recipes.recipe import Training

DTYPES: Mapping[ComputingDtype, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
WARM_UP = 0.1
FINAL_RATE = 0.1
# PyTorch's defaults of AdamW.
BETAS = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a training.

    `loss` is the last step's, in nats per token, auxiliary losses included. `expert_shares` are the
    last step's shares of tokens that chose each expert first, in the experts' order.
    `domain_loss_q` is the q of the router's domain loss, whether the recipe set it or the finetune
    chose it; see `Finetune`.
    """

    step: int
    num_steps: int
    num_tokens: int
    loss: float
    tokens_per_second: float
    eta_seconds: float
    expert_shares: tuple[float, ...] = ()
    domain_loss_q: float | None = None


OnStep = Callable[[Progress], None]


def learning_rate_factor(recipe: Training, step: int) -> float:
    """Return the learning rate of `step` as a share of the peak.

    The rate rises linearly over the first tenth of the steps, then falls to a tenth of the peak
    along a cosine.
    """
    num_warm_up = max(1, round(WARM_UP * recipe.num_steps))
    if step < num_warm_up:
        return (step + 1) / num_warm_up
    done = (step - num_warm_up) / max(1, recipe.num_steps - num_warm_up)
    cosine = (1 + math.cos(math.pi * done)) / 2
    return FINAL_RATE + (1 - FINAL_RATE) * cosine


def optimizer_of(peaks: Iterable[tuple[nn.Parameter, float]]) -> torch.optim.AdamW:
    """Return AdamW without weight decay over parameters, each with its peak learning rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, peak in peaks:
        groups.setdefault(peak, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": peak, "initial_lr": peak}
            for peak, parameters in groups.items()
        ],
        betas=BETAS,
        weight_decay=0.0,
        fused=True,
    )


def largest_change(recipe: Training, peak: float) -> float:
    """Return how far a training can move any weight whose peak learning rate is `peak`.

    A step of Adam (arXiv 1412.6980, section 2.1) is the rate times the mean of the gradients over
    the root of the mean of their squares, each with weights of its own. By the inequality of Cauchy
    and Schwarz that ratio has a bound, which is 1 in the first step and 7.3 after thousands.
    """
    first, second = BETAS
    total, weights = 0.0, 0.0
    for step in range(recipe.num_steps):
        # Squared weights of the mean over the weights of the mean square, up to this step.
        weights += ((1 - first) * first**step) ** 2 / ((1 - second) * second**step)
        corrected = weights * (1 - second ** (step + 1)) / (1 - first ** (step + 1)) ** 2
        total += learning_rate_factor(recipe, step) * peak * math.sqrt(corrected)
    return total


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to the given share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]


class Clock:
    """Measures this process's training speed and estimates the time left."""

    def __init__(self, recipe: Training, first_step: int) -> None:
        self._recipe, self._first_step = recipe, first_step
        self._started = time.monotonic()

    def progress(
        self,
        step: int,
        loss: float,
        *,
        expert_shares: tuple[float, ...] = (),
        domain_loss_q: float | None = None,
    ) -> Progress:
        """Return the progress after `step` steps in all."""
        seconds_per_step = (time.monotonic() - self._started) / (step - self._first_step)
        step_tokens = self._recipe.batch_size * self._recipe.sequence_length
        return Progress(
            step=step,
            num_steps=self._recipe.num_steps,
            num_tokens=step * step_tokens,
            loss=loss,
            tokens_per_second=step_tokens / seconds_per_step,
            eta_seconds=(self._recipe.num_steps - step) * seconds_per_step,
            expert_shares=expert_shares,
            domain_loss_q=domain_loss_q,
        )
