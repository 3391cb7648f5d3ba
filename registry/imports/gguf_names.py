"""How llama.cpp stores networks in GGUF files: names of tensors, orders of rows, and norms.

See its `convert_hf_to_gguf.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.checkpoints import tensor_names
from registry.checkpoints.tensor_names import EMBEDDINGS, FINAL_NORM, LM_HEAD, WEIGHT

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
_GEMMA3_PARTS = _PARTS | {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OUTSIDE = {
    "token_embd.weight": EMBEDDINGS,
    "output_norm.weight": FINAL_NORM,
    "output.weight": LM_HEAD + WEIGHT,
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the networks of one architecture are stored.

    `parts` are the names of a block's parts in the file, with those of transformers. Rows of
    queries and keys may be `interleaved`. Norms may have 1 added, where the network of transformers
    adds it itself.
    """

    model_type: str
    parts: Mapping[str, str]
    interleaved: bool = False
    norms_plus_one: bool = False


# By the architecture that the file names.
LAYOUTS = MappingProxyType(
    {
        "llama": Layout(model_type="llama", parts=_PARTS, interleaved=True),
        "qwen2": Layout(model_type="qwen2", parts=_PARTS),
        "gemma3": Layout(model_type="gemma3_text", parts=_GEMMA3_PARTS, norms_plus_one=True),
    }
)


def of_base(model_type: str) -> Layout:
    """Return the layout of the files of a base that has one."""
    return next(layout for layout in LAYOUTS.values() if layout.model_type == model_type)


def in_transformers(name: str, layout: Layout) -> str | None:
    """Return the name that transformers gives a tensor of a GGUF file; None if it has none."""
    match name.split("."):
        case ["blk", layer, part, ("weight" | "bias") as kind] if part in layout.parts:
            if layer.isdecimal():
                return f"{tensor_names.block(int(layer))}.{layout.parts[part]}.{kind}"
    return _OUTSIDE.get(name)


def as_transformers(
    values: NDArray[Any], name: str, layout: Layout, *, num_heads: int
) -> NDArray[Any]:
    """Return a tensor of a file in the form of transformers, which calls it `name`.

    `num_heads` is the number of query heads, or of key heads of a key.
    """
    if layout.interleaved and (".q_proj." in name or ".k_proj." in name):
        return without_interleaving(values, num_heads)
    if layout.norms_plus_one and name.endswith("norm.weight"):
        return values - 1
    return values


def without_interleaving(values: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """Return rows [rows, ...] of a query or key weight in the order of Llama checkpoints.

    GGUF interleaves the two halves of each head; Llama checkpoints store one after the other.
    """
    pairs = values.reshape(num_heads, len(values) // num_heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
