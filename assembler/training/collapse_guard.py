"""Stop a training that diverges or whose router collapses, with a report of its progress."""

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from assembler.training.train_step import StepResult
from registry.errors import StepFailed

# A router has collapsed when one expert was the first choice of more than this share of the tokens
# of every domain, over this many steps and all blocks together. In a single block that may be
# right.
COLLAPSED_STEPS = 20
COLLAPSED_SHARE = 0.99


class CollapseGuard:
    """Checks every step; `saved_step` is the step of the last checkpoint, 0 without one."""

    def __init__(self, expert_names: Sequence[str], *, saved_step: int) -> None:
        self._names, self.saved_step = expert_names, saved_step
        self._recent_counts = deque[Tensor](maxlen=COLLAPSED_STEPS)

    def check(self, step: int, result: StepResult) -> None:
        """Raise StepFailed when a number is not finite or the router has collapsed.

        The message names the step, the experts' shares and the last good checkpoint.
        """
        for what, value in (("loss", result.loss), ("gradient", result.gradient_norm)):
            if not math.isfinite(value):
                raise self._failed(f"the {what} is {value} in step {step}", result.shares)
        self._recent_counts.append(result.routing_counts)
        if len(self._recent_counts) == COLLAPSED_STEPS:
            counts_NN = torch.stack(list(self._recent_counts)).sum(0)
            if (expert := collapsed_to(counts_NN)) is not None:
                what = f"the router has collapsed to {self._names[expert]} by step {step}"
                raise self._failed(what, (counts_NN.sum(0) / counts_NN.sum()).tolist())

    def _failed(self, what: str, shares: Sequence[float]) -> StepFailed:
        """Return the error to raise, with shares and last checkpoint."""
        shares_by_name = (f"{s:.1%} to {name}" for name, s in zip(self._names, shares, strict=True))
        routing = f"; tokens went {', '.join(shares_by_name)}" if self._names else ""
        saved = f"of step {self.saved_step}" if self.saved_step else "none"
        return StepFailed(f"{what}{routing}; last good checkpoint: {saved}")


def collapsed_to(counts_NN: Tensor) -> int | None:
    """Return the expert that all of at least two domains are routed to, or None.

    `counts_NN` are routing counts, see `assembler.training.losses.count_routing`.
    """
    domains_NN = counts_NN[counts_NN.sum(1) > 0]
    if len(domains_NN) < 2:
        return None
    least_N = (domains_NN / domains_NN.sum(1, keepdim=True)).amin(0)
    expert = int(least_N.argmax())
    return expert if least_N[expert] > COLLAPSED_SHARE else None
