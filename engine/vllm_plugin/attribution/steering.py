"""Tell the routers of a network, token by token, what is switched off; read whom they chose.

Letters at the end of a tensor's name: R requests of the batch, T its tokens, L blocks, N routed
experts, M the same and the shared expert, where there is one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.vllm_plugin.moe import MoE
from engine.vllm_plugin.router import Router
from registry.checkpoints.architecture import Architecture


class Steering:
    """Two tensors as long as the longest batch: every router reads one, every block writes one.

    They are made once. A step writes only as many rows as it has tokens.
    """

    def __init__(self, network: nn.Module, a: Architecture, *, max_tokens: int) -> None:
        self.architecture = a
        blocks = [module for module in network.modules() if isinstance(module, MoE)]
        self.never_N = torch.zeros(a.num_experts, dtype=torch.bool)
        self.never_N[list(a.disabled_experts)] = True
        self.disabled_TN = self.never_N.repeat(max_tokens, 1)
        self.logits_LTN = torch.zeros(len(blocks), max_tokens, a.num_experts)
        self._is_masked = False
        for block, logits_TN in zip(blocks, self.logits_LTN, strict=True):
            block.kept_logits_TN = logits_TN
        for module in network.modules():
            if isinstance(module, Router):
                module.disabled_TN = self.disabled_TN

    def mask(self, disabled: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        """Switch experts off in the next step: `disabled` and number of tokens of each request."""
        if not any(disabled):
            if self._is_masked:
                # All of it: an earlier batch may have been longer.
                self.disabled_TN.copy_(self.never_N)
                self._is_masked = False
            return
        rows_RN = self.never_N.repeat(len(disabled), 1)
        for row_N, numbers in zip(rows_RN, disabled, strict=True):
            row_N[list(numbers)] = True
        rows_TN = rows_RN.repeat_interleave(torch.tensor(lengths), 0)
        self.disabled_TN[: len(rows_TN)] = rows_TN
        self._is_masked = True

    def weights(self, num_tokens: int) -> Tensor:
        """Return what each expert weighed in each block [L, T, M], for the tokens of the last step.

        These are the factors of the experts' outputs, so their sum is 1 where the combination is
        convex or the probabilities are divided by their sum.
        """
        a = self.architecture
        p_LTN = self.logits_LTN[:, :num_tokens].softmax(-1)
        if a.num_experts_per_tok < a.num_experts:
            kept_LTK, chosen_LTK = p_LTN.topk(a.num_experts_per_tok)
            p_LTN = torch.zeros_like(p_LTN).scatter_(-1, chosen_LTK, kept_LTK)
        if a.norm_topk_prob:
            p_LTN = p_LTN / p_LTN.sum(-1, keepdim=True)
        if not a.shared_expert:
            return p_LTN
        sums_LT1 = p_LTN.sum(-1, keepdim=True)
        shared_LT1 = 1 - sums_LT1 if a.combine == "convex" else torch.ones_like(sums_LT1)
        return torch.cat([p_LTN, shared_LT1], -1)
