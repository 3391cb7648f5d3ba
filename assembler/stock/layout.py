"""Say which checkpoints stock vLLM and transformers compute exactly, and with which `config.json`.

A dense checkpoint has its own layout. A mix needs a class of transformers with softmax routing over
all experts and a gated shared expert: `Qwen2MoeForCausalLM`, or `Qwen3NextForCausalLM` for heads
with norms. `assembler.stock.tensors` writes the weights for these.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from registry.bases.own_fields import ROPE
from registry.checkpoints import int8_config
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput

QWEN2_MOE, QWEN3_NEXT = "Qwen2MoeForCausalLM", "Qwen3NextForCausalLM"
MODEL_TYPES = {QWEN2_MOE: "qwen2_moe", QWEN3_NEXT: "qwen3_next"}
# Inner width of the shared expert of a mix that has none. Its weights are zeros. Classes without a
# shared expert either route in another way or know no such width as 0; 64 divides over many GPUs.
EMPTY_WIDTH = 64
OF_QWEN2_MOE: Mapping[str, Any] = {"qkv_bias": True, "use_sliding_window": False}
# Fields of the seed's config that no architecture describes.
KEPT = ("dtype", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
# Fields of the same name in all these configs.
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)


def check(manifest: Manifest, *, name: str) -> None:
    """Raise InvalidInput with everything that keeps a checkpoint from an exact rewriting."""
    if found := list(_obstacles(manifest)):
        raise InvalidInput(
            f"{name} cannot be rewritten exactly for other programs: {'; '.join(found)}. The format"
            " 'nexus' takes every mix"
        )


def class_name(manifest: Manifest) -> str:
    """Return the class of transformers and vLLM that loads the rewritten checkpoint."""
    a = manifest.architecture
    return (a.base.stock_layout if a.num_experts else None) or a.base.architecture


def enabled_experts(a: Architecture) -> list[int]:
    """Return the numbers of the experts that are not disabled: only these are written.

    A disabled expert has probability 0 in the softmax, so without it nothing changes.
    """
    return [number for number in range(a.num_experts) if number not in a.disabled_experts]


def is_for_llama_cpp(manifest: Manifest) -> bool:
    """Tell whether llama.cpp computes the same: it was seen to do so, or reading its code says so.

    Its Qwen2-MoE does not renormalize probabilities, and scales no positions as `llama3` does. Its
    other scalings were not compared.
    """
    a = manifest.architecture
    plain = _rope(a)["rope_type"] == "default"
    return class_name(manifest) == QWEN2_MOE and plain and not a.norm_topk_prob


def config(manifest: Manifest) -> dict[str, Any]:
    """Return the rewritten `config.json` of a checkpoint that `check` accepts."""
    a, layout = manifest.architecture, class_name(manifest)
    if not a.num_experts:
        return manifest.config
    num_experts = len(enabled_experts(a))
    own = _of_qwen3_next(a) if layout == QWEN3_NEXT else dict(OF_QWEN2_MOE)
    return {
        "architectures": [layout],
        "model_type": MODEL_TYPES[layout],
        **{field: manifest.config[field] for field in KEPT if field in manifest.config},
        **{field: getattr(a, field) for field in SIZES},
        # vLLM's Qwen3-Next and llama.cpp's Qwen2-MoE have a head of their own always.
        "tie_word_embeddings": False,
        "hidden_act": a.base.config_activation,
        "num_experts": num_experts,
        "num_experts_per_tok": min(a.num_experts_per_tok, num_experts),
        "norm_topk_prob": a.norm_topk_prob,
        "moe_intermediate_size": a.intermediate_size * (2 if a.combine == "convex" else 1),
        "shared_expert_intermediate_size": a.intermediate_size if a.shared_expert else EMPTY_WIDTH,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        **_positions(a),
        **own,
    }


def _of_qwen3_next(a: Architecture) -> dict[str, Any]:
    # Qwen3-Next rotates a quarter of each head, and has other layers than attention, by default.
    return {
        "head_dim": a.head_dim,
        "attention_bias": False,
        "layer_types": ["full_attention"] * a.num_hidden_layers,
        "full_attention_interval": 1,
        "partial_rotary_factor": 1.0,
        ROPE: _rope(a) | {"partial_rotary_factor": 1.0},
    }


def _positions(a: Architecture) -> dict[str, Any]:
    """Return the rotary embeddings in the form of transformers 5, and in the older one.

    An older program would take its default for what it does not find, without a word.
    """
    rope = _rope(a)
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    old: dict[str, Any] = {"rope_theta": rope["rope_theta"]}
    if rope["rope_type"] != "default":
        old["rope_scaling"] = scaling
    return {ROPE: rope, **old}


def _rope(a: Architecture) -> dict[str, Any]:
    plain = {"rope_type": "default", "rope_theta": a.rope_theta}
    rope = dict(a.base_fields.get(ROPE, plain))
    # Dynamic scaling begins beyond the context. vLLM would scale within it too.
    return plain if rope["rope_type"] == "dynamic" else rope


def _obstacles(manifest: Manifest) -> Iterator[str]:
    a = manifest.architecture
    if num_int8 := len(int8_config.int8_modules(manifest.config)):
        yield f"{num_int8} of its layers are int8, so take a version without compression"
    if a.parallel_block:
        yield "its blocks compute attention and FFN side by side"
    if a.has_gaps:
        yield "parts of its blocks were removed"
    if not a.num_experts:
        return
    if a.attention != "average":
        yield "its attention is a mixture of experts too"
    if a.router == "mlp":
        yield "its routers have a hidden layer"
    if a.base.stock_layout is None:
        yield f"no program has a mixture with the blocks of {a.base.title}"
    else:
        yield from _of_attention(a)


def _of_attention(a: Architecture) -> Iterator[str]:
    if "o_proj.bias" in a.base.attention_axes(a.base_fields):
        yield "its attention adds a bias to its output"
    width = a.hidden_size // a.num_attention_heads
    if a.base.stock_layout == QWEN2_MOE and a.head_dim != width:
        yield f"its heads are {a.head_dim} wide, and the layout has {width}: hidden size / heads"
    window = a.base_fields.get("sliding_window")
    if window is not None and window < a.max_position_embeddings:
        yield f"its attention sees a window of {window} tokens only"
