"""The router of FFN or attention experts in vLLM's layers."""

import torch
import torch.nn.functional as F
from torch import Tensor
from vllm.model_executor.layers.fused_moe import GateLinear
from vllm.model_executor.layers.linear import ReplicatedLinear

from registry.checkpoints.architecture import Architecture


class Router(GateLinear):
    """Score experts with one row each; with `router_hidden_size` compute `rows relu(W x)`."""

    disabled: Tensor
    # [T, N] of the longest batch, where `attribution.steering` switches experts off by token.
    disabled_TN: Tensor | None = None

    def __init__(self, a: Architecture, *, router_hidden_size: int = 0, prefix: str) -> None:
        super().__init__(router_hidden_size or a.hidden_size, a.num_experts, prefix=prefix)
        self.hidden = None
        if router_hidden_size:
            self.hidden = ReplicatedLinear(
                a.hidden_size, router_hidden_size, bias=False, prefix=f"{prefix}.hidden"
            )
        mask_N = torch.zeros(a.num_experts, dtype=torch.bool)
        mask_N[list(a.disabled_experts)] = True
        self.register_buffer("disabled", mask_N, persistent=False)

    def logits(self, x_TD: Tensor) -> Tensor:
        """Map hidden states [T, D] to router logits [T, N]; disabled experts get minus infinity."""
        if self.hidden is not None:
            hidden, _ = self.hidden(x_TD)
            x_TD = F.relu(hidden)
        logits_TN, _ = self(x_TD)
        disabled = self.disabled if self.disabled_TN is None else self.disabled_TN[: len(x_TD)]
        masked_TN: Tensor = logits_TN.masked_fill(disabled, -torch.inf)
        return masked_TN
