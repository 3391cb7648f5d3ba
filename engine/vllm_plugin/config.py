"""The mix's `config.json` as a config class of transformers and vLLM.

The fields are those of `registry.checkpoints.architecture`, which alone defines what they mean.
"""

from typing import Any

from transformers import CONFIG_MAPPING, LlamaConfig, PreTrainedConfig

from registry.checkpoints.architecture import Attention, Combine, Router


class NexusConfig(LlamaConfig):  # type: ignore[no-untyped-call]  # their __init_subclass__
    """Llama's config with the fields of a mix, which are those of `Architecture`.

    The config of a mix of another base is read as the base's own class. Whatever asks for the model
    type, as the rules for masks and positions do, then sees the base.
    """

    model_type = "nexus"

    num_experts: int = 0
    num_experts_per_tok: int = 1
    expert_names: list[str] | None = None
    shared_expert: bool = True
    combine: Combine = "convex"
    router: Router = "nexus"
    attention: Attention = "average"
    parallel_block: bool = False
    domain_embedding_size: int = 0
    disabled_experts: list[int] | None = None
    norm_topk_prob: bool = False
    router_hidden_size: int = 0
    num_attention_experts_per_tok: int = 0
    ffn_sizes: list[int] | None = None
    layers_without_attention: list[int] | None = None

    @classmethod
    def from_dict(  # type: ignore[override]  # the base's own class
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> PreTrainedConfig:
        """Return the config of a mix."""
        base = config_dict.get("base_model_type")
        if base is None:
            return super().from_dict(config_dict, **kwargs)
        return CONFIG_MAPPING[base].from_dict({**config_dict, "model_type": base}, **kwargs)
