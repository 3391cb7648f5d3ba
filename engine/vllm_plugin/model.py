"""The mix in vLLM's layers: fast, parallel, and equal to `assembler.network.model` up to rounding.

Everything is vLLM's own Llama except the mixtures of experts, the parallel block and removed
layers.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
)
from vllm.model_executor.models.utils import WeightsMapper, extract_layer_index

from engine.vllm_plugin.attention import WideAttention
from engine.vllm_plugin.moe import MoE
from engine.vllm_plugin.wide_attention import widen
from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture

# vLLM fuses projections that read the same input. Llama's own table would also match the routed
# experts, which load their weights themselves. The tensors mapped to None serve only to extend a
# mix; vLLM does not load them.
MAPPER = WeightsMapper(
    orig_to_new_substr={tensor_names.PROJECTION_PART: None, "domain_embeddings": None},
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
    """A decoder layer with experts, a parallel block, a small FFN or removed parts."""

    def __init__(self, vllm_config: VllmConfig, prefix: str = "") -> None:
        a = _architecture(vllm_config)
        layer = extract_layer_index(prefix)
        super().__init__(
            vllm_config=vllm_config, prefix=prefix, attn_layer_type=_attention(a, layer)
        )
        self.has_attention, ffn_size = a.has_attention(layer), a.ffn_size(layer)
        self.has_ffn = ffn_size > 0
        if not self.has_attention:
            del self.self_attn, self.input_layernorm
        if not self.has_ffn:
            del self.mlp, self.post_attention_layernorm
        elif ffn_size != a.intermediate_size:
            self.mlp = LlamaMLP(
                hidden_size=a.hidden_size,
                intermediate_size=ffn_size,
                hidden_act="silu",
                quant_config=vllm_config.quant_config,
                prefix=f"{prefix}.mlp",
            )
        if a.num_experts:
            self.mlp = MoE(  # type: ignore[assignment]  # replaces the dense FFN
                a, vllm_config=vllm_config, prefix=f"{prefix}.mlp"
            )
        self.is_parallel = a.parallel_block
        if a.parallel_block:
            del self.post_attention_layernorm

    def forward(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's output [T, D] and the residual [T, D] to add it to."""
        if not self.is_parallel:
            return self._sequential(positions, hidden_states, residual)
        if residual is None:
            residual = hidden_states
            normed_TD = self.input_layernorm(hidden_states)
        else:
            normed_TD, residual = self.input_layernorm(hidden_states, residual)
        return self.self_attn(positions, normed_TD) + self.mlp(normed_TD), residual

    def _sequential(
        self, positions: Tensor, hidden_states: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute attention, then FFN, where they exist; shapes as in `forward`."""
        if self.has_attention and self.has_ffn:
            return super().forward(positions, hidden_states, residual)
        if residual is None:
            residual = torch.zeros_like(hidden_states)
        if self.has_attention:
            normed_TD, residual = self.input_layernorm(hidden_states, residual)
            hidden_states = self.self_attn(positions=positions, hidden_states=normed_TD)
        elif self.has_ffn:
            normed_TD, residual = self.post_attention_layernorm(hidden_states, residual)
            hidden_states = self.mlp(normed_TD)
        return hidden_states, residual


class _NoAttention(nn.Module):
    """Replace an attention layer that was removed.

    A vLLM attention layer would get a key-value cache as soon as it is constructed.
    """

    def __init__(self, **_: object) -> None:
        super().__init__()


class NexusModel(LlamaModel):
    """The decoder stack with the tensor names of a mix."""

    hf_to_vllm_mapper = MAPPER


class NexusForCausalLM(LlamaForCausalLM):
    """The language model that vLLM serves for a mix."""

    hf_to_vllm_mapper = MAPPER

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=NexusDecoderLayer)
        self.architecture = _architecture(vllm_config)

    def _init_model(
        self, vllm_config: VllmConfig, prefix: str = "", layer_type: type[nn.Module] = nn.Module
    ) -> NexusModel:
        return NexusModel(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load `(name, tensor)` pairs; return the names of loaded parameters."""
        return super().load_weights(widen(weights, self.architecture))


def _attention(a: Architecture, layer: int) -> type[nn.Module]:
    if not a.has_attention(layer):
        return _NoAttention
    has_experts = a.num_experts > 0 and a.attention != "average"
    return WideAttention if has_experts else LlamaAttention


def _architecture(vllm_config: VllmConfig) -> Architecture:
    return Architecture.from_config(vllm_config.model_config.hf_config.to_dict())
