"""Names of tensors in GGUF files, and the names that transformers gives them.

llama.cpp stores the rows of Llama's query and key weights in another order.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.checkpoints import tensor_names
from registry.checkpoints.tensor_names import EMBEDDINGS, FINAL_NORM, LM_HEAD, WEIGHT

# The architecture in the file -> whether rotary dimensions are interleaved there.
ARCHITECTURES = {"llama": True, "qwen2": False}

_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {
    "token_embd.weight": EMBEDDINGS,
    "output_norm.weight": FINAL_NORM,
    "output.weight": LM_HEAD + WEIGHT,
}


def in_transformers(name: str) -> str | None:
    """Return the name that transformers gives a tensor of a GGUF file; None if it has none."""
    match name.split("."):
        case ["blk", layer, part, ("weight" | "bias") as kind] if part in _PARTS:
            if layer.isdecimal():
                return f"{tensor_names.block(int(layer))}.{_PARTS[part]}.{kind}"
    return _OUTSIDE.get(name)


def is_interleaved(name: str, *, architecture: str) -> bool:
    """Tell whether the rows of a tensor, named as in transformers, are interleaved in the file."""
    is_rotary = ".q_proj." in name or ".k_proj." in name
    return is_rotary and ARCHITECTURES[architecture]


def without_interleaving(values: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """Return rows [rows, ...] of a query or key weight in the order of Llama checkpoints.

    GGUF interleaves the two halves of each head; Llama checkpoints store one after the other.
    """
    pairs = values.reshape(num_heads, len(values) // num_heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
