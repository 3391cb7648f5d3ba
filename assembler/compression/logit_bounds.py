"""Find the first divergence of a text from the logits of few vocabulary entries.

When the input of the head moves by a distance d, the logit of an entry moves by at most d times the
norm of its weight row (Cauchy-Schwarz). Near an input with known logits, most entries therefore
cannot reach the logit of the next token, and their products are skipped. Where the bounds do not
decide, all logits are computed. All logits give the same result.

Suffixes of tensor names: B texts, S scored tokens, D hidden, V vocabulary, K kept entries.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

# Number of entries whose logits are computed at each position, and the largest move of an input, as
# a share of its norm, for which the bounds hold. One int8 unit of SmolLM2-135M moves inputs by 0.2
# to 4 %.
NUM_KEPT = 64
RADIUS = 0.04
# Float32 logits differ by 1e-5 when they are summed in another order.
SLACK = 1e-3

Logits = Callable[[Tensor], Tensor]


class LogitBounds:
    """Upper bounds on the logits of a float32 head around known inputs [B, S, D]."""

    def __init__(
        self,
        logits: Logits,
        weight_VD: Tensor,
        next_BS: Tensor,
        inputs_BSD: Tensor,
        kept_BSK: Tensor,
        others: tuple[Tensor, Tensor],
    ) -> None:
        self._logits, self._weight_VD, self._next_BS = logits, weight_VD, next_BS
        self._inputs_BSD, self._kept_BSK = inputs_BSD, kept_BSK
        # Largest logit of the entries that are not kept: at the known input, and a bound at RADIUS.
        self._here_BS, self._there_BS = others

    @classmethod
    def of(cls, logits: Logits, weight_VD: Tensor, next_BS: Tensor, inputs_BSD: Tensor) -> Self:
        """Compute bounds around these inputs: one pass of the head, 0.5 kB for each position."""
        lengths_V = weight_VD.norm(dim=-1)
        num_kept = min(NUM_KEPT, len(weight_VD) - 1)
        kept, here, there = [], [], []
        for inputs_SD in inputs_BSD:
            here_SV = logits(inputs_SD)
            there_SV = here_SV + _radius(inputs_SD) * lengths_V
            best = there_SV.topk(num_kept + 1, dim=-1)
            kept.append(best.indices[:, :-1])
            there.append(best.values[:, -1])
            here.append(here_SV.scatter(-1, kept[-1], -torch.inf).amax(-1))
        others = torch.stack(here), torch.stack(there)
        return cls(logits, weight_VD, next_BS, inputs_BSD, torch.stack(kept), others)

    def first_divergences(self, inputs_BSD: Tensor, rows: Sequence[int]) -> list[int]:
        """Return for each text in `rows` how many next tokens are the argmax before the first that
        is not. Inputs [B, S, D] may be shorter than the known ones: then the first S count."""
        next_BS = self._next_BS[rows, : inputs_BSD.shape[1]]
        next_logits_BS, differs_BS = self._compare_kept(inputs_BSD, rows)
        agrees_BS = next_logits_BS > self._bound_others(inputs_BSD, rows) + SLACK
        # Positions after the first difference do not matter.
        unsure_BS = ~agrees_BS & (differs_BS.cumsum(-1) == 0)
        predicted = self._logits(inputs_BSD[unsure_BS]).argmax(-1)
        differs_BS[unsure_BS] = predicted != next_BS[unsure_BS]
        return (~differs_BS).cumprod(-1).sum(-1).tolist()

    def _compare_kept(self, inputs_BSD: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the logits [B, S] of the next tokens, and whether a kept entry beats them [B, S].

        Of equal logits the lower id wins.
        """
        at = (rows, slice(inputs_BSD.shape[1]))
        next_BS1, kept_BSK = self._next_BS[at][..., None], self._kept_BSK[at]
        ids_BSK = torch.cat((next_BS1, kept_BSK), -1)
        logits_BSK = (self._weight_VD[ids_BSK] @ inputs_BSD[..., None])[..., 0]
        next_logits_BS1, kept_logits_BSK = logits_BSK[..., :1], logits_BSK[..., 1:]
        ties_BSK = (kept_logits_BSK == next_logits_BS1) & (kept_BSK < next_BS1)
        beaten_BS = ((kept_logits_BSK > next_logits_BS1) | ties_BSK).any(-1)
        return next_logits_BS1[..., 0], beaten_BS

    def _bound_others(self, inputs_BSD: Tensor, rows: Sequence[int]) -> Tensor:
        """Return upper bounds [B, S] on the logits of the entries that are not kept.

        The largest possible logit is a convex function of the distance, so the line between its
        two ends lies above it. Beyond RADIUS the bound is infinite.
        """
        at = (rows, slice(inputs_BSD.shape[1]))
        inputs_here_BSD = self._inputs_BSD[at]
        moved_BS1 = (inputs_BSD - inputs_here_BSD).norm(dim=-1, keepdim=True)
        share_BS = (moved_BS1 / _radius(inputs_here_BSD))[..., 0]
        bound_BS = torch.lerp(self._here_BS[at], self._there_BS[at], share_BS)
        return torch.where(share_BS <= 1, bound_BS, torch.inf)


def _radius(inputs_D: Tensor) -> Tensor:
    """Return RADIUS times the norm of each input [..., 1]."""
    length: Tensor = inputs_D.norm(dim=-1, keepdim=True)
    return RADIUS * length
