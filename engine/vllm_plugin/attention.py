"""BAM's mixture of attention experts in vLLM's layers, computed as one wide attention.

Letters at the end of a tensor's name: T tokens of the batch, D hidden, A attention experts, K
experts per token, H heads of this rank, C head width.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig
from vllm.distributed import get_tensor_model_parallel_rank, get_tensor_model_parallel_world_size
from vllm.model_executor.models.llama import LlamaAttention

from engine.vllm_plugin import wide_attention
from engine.vllm_plugin.router import Router
from registry.checkpoints.architecture import Architecture


class WideAttention(LlamaAttention):
    """Compute `sum_j g_j(x) attention_j(x)`, `g = softmax(x W)` (BAM, arXiv 2408.08274, section
    3.2).

    All experts contribute, or with `num_attention_experts_per_tok` only the K largest gates, which
    are not renormalized. With tensor parallelism each rank holds a contiguous range of the heads
    and the whole router. Raises ValueError when the heads cannot be divided evenly among the ranks.
    """

    expert_of_head: Tensor

    def __init__(self, config: LlamaConfig, *, prefix: str = "", **rest: Any) -> None:
        a = Architecture.from_config(config.to_dict())
        _check_ranks(a)
        heads = {
            "num_heads": wide_attention.num_heads(a),
            "num_kv_heads": wide_attention.num_key_value_heads(a),
        }
        super().__init__(config, prefix=prefix, **(rest | heads))
        self.num_experts = a.num_experts
        self.num_experts_per_tok = a.num_attention_experts_per_tok or a.num_experts
        self.gate = Router(a, prefix=f"{prefix}.gate")
        heads_per_rank = torch.split(wide_attention.expert_of_head(a), self.num_heads)
        local_heads = heads_per_rank[get_tensor_model_parallel_rank()]
        self.register_buffer("expert_of_head", local_heads, persistent=False)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        """Map hidden states [T, D] to attention outputs [T, D]."""
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        attended_THC = self.attn(q, k, v).view(-1, self.num_heads, self.head_dim)
        g_TH = self._gates(hidden_states)[:, self.expert_of_head]
        output_TD: Tensor
        output_TD, _ = self.o_proj((g_TH[..., None] * attended_THC).flatten(1))
        return output_TD

    def _gates(self, x_TD: Tensor) -> Tensor:
        """Return the gate [T, A] of each expert, zero for experts that are not selected."""
        g_TA = self.gate.logits(x_TD).float().softmax(-1)
        if self.num_experts_per_tok < self.num_experts:
            kept_TK, chosen_TK = g_TA.topk(self.num_experts_per_tok)
            g_TA = torch.zeros_like(g_TA).scatter(-1, chosen_TK, kept_TK)
        return g_TA.to(x_TD.dtype)


def _check_ranks(a: Architecture) -> None:
    """Raise ValueError when the heads cannot be divided evenly among the ranks."""
    ranks = get_tensor_model_parallel_world_size()
    groups = wide_attention.num_key_value_heads(a)
    if wide_attention.num_heads(a) % ranks or (groups % ranks and ranks % groups):
        raise ValueError(
            f"tensor_parallel_size {ranks} does not fit {wide_attention.num_heads(a)} query and "
            f"{groups} key-value heads of {a.num_experts} attention experts"
        )
