"""Where texts first diverge, told by the few words that can win at all.

When the input of a head moves by d, the logit of a word moves by at most d times the length of the
word's weights (Cauchy and Schwarz). So near an input whose logits are known most words of the
vocabulary cannot come up to the one that a text goes on with, and need not be multiplied. What this
does not settle is told by all words, and the answer is always that of all.

Letters at the end of a tensor's name: B texts, S tokens that count, D hidden, V vocabulary, K words
that are kept.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

# Words that are multiplied of each position, and how far inputs may move for this to say anything,
# of their length. A unit of SmolLM2-135M in int8 moves them by 0.2 to 4 %.
NUM_KEPT = 64
RADIUS = 0.04
# Float32 logits that are summed in another order differ by 1e-5.
SLACK = 1e-3

Logits = Callable[[Tensor], Tensor]


class LogitBounds:
    """Of `rows` of the inputs [B, S, D] of a float32 head `first_divergences` tells how many of the
    tokens [B, S] are the argmax before the first that is not; of the first S of them, if fewer are
    given."""

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
        # The most that a word which is not kept may reach here, and at the radius.
        self._here_BS, self._there_BS = others

    @classmethod
    def of(cls, logits: Logits, weight_VD: Tensor, next_BS: Tensor, inputs_BSD: Tensor) -> Self:
        """Around these inputs: 0.5 kB for each position, and one pass through the head."""
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
        next_BS = self._next_BS[rows, : inputs_BSD.shape[1]]
        own_BS, differs_BS = self._among_kept(inputs_BSD, rows)
        agrees_BS = own_BS > self._most_of_others(inputs_BSD, rows) + SLACK
        # Behind the first that differs nothing counts.
        unsure_BS = ~agrees_BS & (differs_BS.cumsum(-1) == 0)
        said = self._logits(inputs_BSD[unsure_BS]).argmax(-1)
        differs_BS[unsure_BS] = said != next_BS[unsure_BS]
        return (~differs_BS).cumprod(-1).sum(-1).tolist()

    def _among_kept(self, inputs_BSD: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The logits [B, S] of the tokens, and whether a word that is kept comes before them."""
        own = (rows, slice(inputs_BSD.shape[1]))
        next_BS1, kept_BSK = self._next_BS[own][..., None], self._kept_BSK[own]
        words_BSK = torch.cat((next_BS1, kept_BSK), -1)
        logits_BSK = (self._weight_VD[words_BSK] @ inputs_BSD[..., None])[..., 0]
        own_BS1, kept_logits_BSK = logits_BSK[..., :1], logits_BSK[..., 1:]
        ties_BSK = (kept_logits_BSK == own_BS1) & (kept_BSK < next_BS1)
        return own_BS1[..., 0], ((kept_logits_BSK > own_BS1) | ties_BSK).any(-1)

    def _most_of_others(self, inputs_BSD: Tensor, rows: Sequence[int]) -> Tensor:
        """Which no other word exceeds [B, S]: the most that one may reach is convex in how far
        inputs have moved, hence below the line between its ends."""
        own = (rows, slice(inputs_BSD.shape[1]))
        inputs_here_BSD = self._inputs_BSD[own]
        moved_BS1 = (inputs_BSD - inputs_here_BSD).norm(dim=-1, keepdim=True)
        share_BS = (moved_BS1 / _radius(inputs_here_BSD))[..., 0]
        most_BS = torch.lerp(self._here_BS[own], self._there_BS[own], share_BS)
        return torch.where(share_BS <= 1, most_BS, torch.inf)


def _radius(inputs_D: Tensor) -> Tensor:
    length: Tensor = inputs_D.norm(dim=-1, keepdim=True)
    return RADIUS * length
