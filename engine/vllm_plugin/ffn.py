"""A gated FFN in vLLM's layers: the shared expert of a mixture."""

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.activation import get_act_and_mul_fn
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear

from registry.checkpoints.architecture import Architecture


class FeedForward(nn.Module):
    """Compute `down(activation(gate x) * up x)`, with gate and up fused."""

    def __init__(self, a: Architecture, *, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            a.hidden_size,
            [a.intermediate_size] * 2,
            bias=False,
            quant_config=vllm_config.quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            a.intermediate_size,
            a.hidden_size,
            bias=False,
            quant_config=vllm_config.quant_config,
            prefix=f"{prefix}.down_proj",
        )
        self.act_fn = get_act_and_mul_fn(a.base.config_activation)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Map inputs [T, D] to outputs [T, D]."""
        inner_TF, _ = self.gate_up_proj(x_TD)
        output_TD: Tensor
        output_TD, _ = self.down_proj(self.act_fn(inner_TF))
        return output_TD
