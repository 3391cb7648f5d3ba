"""The mixture of FFN experts in vLLM's layers: `assembler.network.moe` with a fused expert kernel.

Letters at the end of a tensor's name: T tokens of the batch, D hidden, N routed experts, K experts
per token.
"""

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe import FusedMoEFactory

from engine.vllm_plugin.ffn import FeedForward
from engine.vllm_plugin.router import Router
from registry.checkpoints.architecture import Architecture


class MoE(nn.Module):
    """Mix routed experts and a shared expert as Nexus (arXiv 2408.15901, section 3), BTX or BAM do.

    With `combine` = `convex`, this project's variant, the shared expert is weighted by one minus
    the sum of the selected router probabilities.
    """

    # [T, N] of the longest batch, where `attribution.steering` reads the logits of each step.
    kept_logits_TN: Tensor | None = None

    def __init__(self, a: Architecture, *, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.num_experts_per_tok, self.combine = a.num_experts_per_tok, a.combine
        self.gate = Router(a, router_hidden_size=a.router_hidden_size, prefix=f"{prefix}.gate")
        # Not passed to vLLM's runner as its shared expert: the runner cannot weight a shared expert
        # by token.
        self.shared_expert = None
        if a.shared_expert:
            name = f"{prefix}.shared_expert"
            self.shared_expert = FeedForward(a, vllm_config=vllm_config, prefix=name)
        self.experts = FusedMoEFactory(
            num_experts=a.num_experts,
            top_k=a.num_experts_per_tok,
            hidden_size=a.hidden_size,
            intermediate_size=a.intermediate_size,
            renormalize=a.norm_topk_prob,
            activation=a.base.config_activation,
            quant_config=vllm_config.quant_config,
            prefix=f"{prefix}.experts",
        )

    def forward(self, x_TD: Tensor) -> Tensor:
        """Map hidden states [T, D] to mixed FFN outputs [T, D]."""
        logits_TN = self.gate.logits(x_TD)
        if self.kept_logits_TN is not None:
            self.kept_logits_TN[: len(x_TD)].copy_(logits_TN)
        y_TD: Tensor = self.experts(hidden_states=x_TD, router_logits=logits_TN)
        if self.shared_expert is not None:
            shared_TD: Tensor = self.shared_expert(x_TD)
            if self.combine == "convex":
                p_TK, _ = logits_TN.float().softmax(-1).topk(self.num_experts_per_tok)
                shared_TD = (1 - p_TK.to(x_TD.dtype).sum(-1, keepdim=True)) * shared_TD
            y_TD = shared_TD + y_TD
        return y_TD
