"""The mix in vLLM's layers: fast, parallel, and equal to `assembler.network` to rounding.

Everything but the mixtures and the parallel block is vLLM's own Llama.
"""

from collections.abc import Iterable

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaModel,
)
from vllm.model_executor.models.utils import WeightsMapper

from engine.vllm_attention import WideAttention
from engine.vllm_mixture import Mixture
from engine.wide_attention import widen
from registry.architecture import Architecture

# vLLM fuses what reads the same input. Llama's own table would also catch the routed experts,
# which load themselves. What only the extension of a mix needs is left out.
MAPPER = WeightsMapper(
    orig_to_new_substr={".mlp.gate.projection.": None, "domain_embeddings": None},
    orig_to_new_stacked={
        ".q_proj": (".qkv_proj", "q"),
        ".k_proj": (".qkv_proj", "k"),
        ".v_proj": (".qkv_proj", "v"),
        ".mlp.gate_proj": (".mlp.gate_up_proj", 0),
        ".mlp.up_proj": (".mlp.gate_up_proj", 1),
        ".shared_expert.gate_proj": (".shared_expert.gate_up_proj", 0),
        ".shared_expert.up_proj": (".shared_expert.gate_up_proj", 1),
    },
)


class NexusDecoderLayer(LlamaDecoderLayer):
    def __init__(self, vllm_config: VllmConfig, prefix: str = "") -> None:
        a = _architecture(vllm_config)
        has_experts = a.num_experts > 0 and a.attention != "average"
        super().__init__(
            vllm_config=vllm_config,
            prefix=prefix,
            attn_layer_type=WideAttention if has_experts else LlamaAttention,
        )
        if a.num_experts:
            self.mlp = Mixture(  # type: ignore[assignment]  # in the place of the dense FFN
                a, vllm_config=vllm_config, prefix=f"{prefix}.mlp"
            )
        self.is_parallel = a.parallel_block
        if a.parallel_block:
            del self.post_attention_layernorm

    def forward(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What the layer adds to the stream [T, D], and the stream before it [T, D]."""
        if not self.is_parallel:
            return super().forward(positions, hidden_states, residual)
        if residual is None:
            residual = hidden_states
            normed_TD = self.input_layernorm(hidden_states)
        else:
            normed_TD, residual = self.input_layernorm(hidden_states, residual)
        return self.self_attn(positions, normed_TD) + self.mlp(normed_TD), residual


class NexusModel(LlamaModel):
    hf_to_vllm_mapper = MAPPER


class NexusForCausalLM(LlamaForCausalLM):
    hf_to_vllm_mapper = MAPPER

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=NexusDecoderLayer)
        self.architecture = _architecture(vllm_config)

    def _init_model(
        self, vllm_config: VllmConfig, prefix: str = "", layer_type: type[nn.Module] = nn.Module
    ) -> NexusModel:
        return NexusModel(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        return super().load_weights(widen(weights, self.architecture))


def _architecture(vllm_config: VllmConfig) -> Architecture:
    return Architecture.from_config(vllm_config.model_config.hf_config.to_dict())
