"""Stops a training that leads nowhere, and says how far it had got."""

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from assembler.training.train_step import Taken
from registry.errors import StepFailed

# A router has collapsed when for so many steps one expert was the first choice of more than this
# share of the tokens of every domain, all blocks together. In a single block that may be right.
COLLAPSED_STEPS = 20
COLLAPSED_SHARE = 0.99


class Guard:
    """Looks at every step; `saved_step` is that of the last checkpoint, 0 without one."""

    def __init__(self, expert_names: Sequence[str], *, saved_step: int) -> None:
        self._names, self.saved_step = expert_names, saved_step
        self._choices = deque[Tensor](maxlen=COLLAPSED_STEPS)

    def check(self, step: int, taken: Taken) -> None:
        """Raises StepFailed with the step, the experts' shares and the last good checkpoint."""
        for what, value in (("loss", taken.loss), ("gradient", taken.gradient_norm)):
            if not math.isfinite(value):
                raise self._failed(f"the {what} is {value} in step {step}", taken.shares)
        self._choices.append(taken.choices)
        if len(self._choices) == COLLAPSED_STEPS:
            chosen_NN = torch.stack(list(self._choices)).sum(0)
            if (expert := collapsed_to(chosen_NN)) is not None:
                what = f"the router has collapsed to {self._names[expert]} by step {step}"
                raise self._failed(what, (chosen_NN.sum(0) / chosen_NN.sum()).tolist())

    def _failed(self, what: str, shares: Sequence[float]) -> StepFailed:
        named = (f"{s:.1%} to {name}" for name, s in zip(self._names, shares, strict=True))
        routed = f"; tokens went {', '.join(named)}" if self._names else ""
        saved = f"of step {self.saved_step}" if self.saved_step else "none"
        return StepFailed(f"{what}{routed}; last good checkpoint: {saved}")


def collapsed_to(chosen_NN: Tensor) -> int | None:
    """The expert that all domains, of two or more, go to; see
    `assembler.training.losses.choices`."""
    domains_NN = chosen_NN[chosen_NN.sum(1) > 0]
    if len(domains_NN) < 2:
        return None
    least_N = (domains_NN / domains_NN.sum(1, keepdim=True)).amin(0)
    expert = int(least_N.argmax())
    return expert if least_N[expert] > COLLAPSED_SHARE else None
