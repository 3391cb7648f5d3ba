"""The mix in vLLM's layers: fast, parallel, and equal to `assembler.network` to rounding.

Everything but the FFN is vLLM's own Llama. Letters at the end of a tensor's name: T tokens of the
batch, D hidden, N routed experts, K experts per token.
"""

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, GateLinear
from vllm.model_executor.models.llama import (
    LlamaDecoderLayer,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
)
from vllm.model_executor.models.utils import WeightsMapper

from registry.architecture import Architecture

# vLLM fuses what reads the same input. Llama's own table would also catch the routed experts,
# which load themselves. What only the extension of a mix needs is left out.
MAPPER = WeightsMapper(
    orig_to_new_substr={".mlp.gate.projection.": None, "domain_embeddings": None},
    orig_to_new_stacked={
        ".q_proj": (".qkv_proj", "q"),
        ".k_proj": (".qkv_proj", "k"),
        ".v_proj": (".qkv_proj", "v"),
        ".shared_expert.gate_proj": (".shared_expert.gate_up_proj", 0),
        ".shared_expert.up_proj": (".shared_expert.gate_up_proj", 1),
    },
)


class NexusMixture(nn.Module):
    """The Nexus mixture (arXiv 2408.15901, section 3); `convex` is this project's variant of it."""

    disabled: Tensor

    def __init__(self, architecture: Architecture, *, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        a = architecture
        quantisation = vllm_config.quant_config
        self.num_experts_per_tok, self.combine = a.num_experts_per_tok, a.combine
        self.gate = GateLinear(a.hidden_size, a.num_experts, prefix=f"{prefix}.gate")
        self.shared_expert = LlamaMLP(
            hidden_size=a.hidden_size,
            intermediate_size=a.intermediate_size,
            hidden_act="silu",
            quant_config=quantisation,
            prefix=f"{prefix}.shared_expert",
        )
        # Not given to the runner as its shared expert: it has no weight for one that depends on
        # the token.
        self.experts = FusedMoEFactory(
            num_experts=a.num_experts,
            top_k=a.num_experts_per_tok,
            hidden_size=a.hidden_size,
            intermediate_size=a.intermediate_size,
            renormalize=False,
            quant_config=quantisation,
            prefix=f"{prefix}.experts",
        )
        mask = torch.zeros(a.num_experts, dtype=torch.bool)
        mask[list(a.disabled_experts)] = True
        self.register_buffer("disabled", mask, persistent=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        logits_TN, _ = self.gate(x_TD)
        logits_TN = logits_TN.masked_fill(self.disabled, -torch.inf)
        routed_TD = self.experts(hidden_states=x_TD, router_logits=logits_TN)
        shared_TD = self.shared_expert(x_TD)
        if self.combine == "convex":
            p_TK, _ = logits_TN.float().softmax(-1).topk(self.num_experts_per_tok)
            shared_TD = (1 - p_TK.to(x_TD.dtype).sum(-1, keepdim=True)) * shared_TD
        combined_TD: Tensor = shared_TD + routed_TD
        return combined_TD


class NexusDecoderLayer(LlamaDecoderLayer):
    def __init__(self, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        architecture = Architecture.from_config(vllm_config.model_config.hf_config.to_dict())
        self.mlp = NexusMixture(  # type: ignore[assignment]  # in the place of the dense FFN
            architecture, vllm_config=vllm_config, prefix=f"{prefix}.mlp"
        )


class NexusModel(LlamaModel):
    hf_to_vllm_mapper = MAPPER


class NexusForCausalLM(LlamaForCausalLM):
    hf_to_vllm_mapper = MAPPER

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=NexusDecoderLayer)

    def _init_model(
        self, vllm_config: VllmConfig, prefix: str = "", layer_type: type[nn.Module] = nn.Module
    ) -> NexusModel:
        return NexusModel(vllm_config=vllm_config, prefix=prefix, layer_type=layer_type)
