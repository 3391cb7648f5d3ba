"""Names of the tensors in a checkpoint: build them, and tell which part a name belongs to.

Dense checkpoints have the names that transformers gives a Llama. A mix adds routers, routed
experts, a shared expert and domain embeddings to each block. Functions named after a module return
its name without `.weight`; functions named after a tensor return the whole name.
"""

import re

WEIGHT = ".weight"
# Suffix of the scales [O, 1] beside the weight [O, I] of an int8 linear layer.
SCALE = ".weight_scale"

EMBEDDINGS = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
# The module; its weight is missing where the embeddings are used instead.
LM_HEAD = "lm_head"
DOMAIN_EMBEDDINGS = "model.domain_embeddings"
# Part of the names of every tensor of a projection, and of no other tensor.
PROJECTION_PART = ".gate.projection."

# The linear layers of an FFN, dense or of one expert.
FFN_PARTS = ("gate_proj", "up_proj", "down_proj")

_LINEAR = re.compile(
    r"(?P<module>model\.layers\.(?P<layer>\d+)\..+\.(q|k|v|o|gate|up|down)_proj)\.weight"
)
# The linear layers of an attention, in parts or fused.
_ATTENTION_LINEAR = re.compile(r"(?P<attention>.*\.self_attn)\.(?P<part>q|k|v|qkv|o)_proj\.weight")
_ATTENTION_EXPERT = re.compile(
    r"(?P<attention>.*\.self_attn)\.experts\.(?P<expert>\d+)\.(?P<part>[qkvo]_proj\.weight)"
)


def block(layer: int) -> str:
    """Return the module of one block: attention, FFN and their norms."""
    return f"model.layers.{layer}"


def attention(layer: int) -> str:
    """Return the attention module of a block."""
    return f"{block(layer)}.self_attn"


def attention_expert(layer: int, number: int) -> str:
    """Return the module of one attention expert."""
    return f"{attention(layer)}.experts.{number}"


def attention_router_rows(layer: int) -> str:
    """Return the tensor with one row [N, D] per attention expert."""
    return f"{attention(layer)}.gate.weight"


def ffn(layer: int) -> str:
    """Return the module of a dense FFN, or of everything that replaces it in a mix."""
    return f"{block(layer)}.mlp"


def shared_expert(layer: int) -> str:
    """Return the module of the FFN that every token passes."""
    return f"{ffn(layer)}.shared_expert"


def routed_experts(layer: int) -> str:
    """Return the module that holds all routed experts of a block."""
    return f"{ffn(layer)}.experts"


def routed_expert(layer: int, number: int) -> str:
    """Return the module of one routed expert."""
    return f"{routed_experts(layer)}.{number}"


def router(layer: int) -> str:
    """Return the router module of a block's routed experts."""
    return f"{ffn(layer)}.gate"


def router_rows(layer: int) -> str:
    """Return the tensor with one row per routed expert: [N, D], behind a hidden layer [N, R]."""
    return f"{router(layer)}.weight"


def router_hidden(layer: int) -> str:
    """Return the hidden layer [R, D] of an `mlp` router."""
    return f"{router(layer)}.hidden.weight"


def projection(layer: int, number: int) -> str:
    """Return W1 (`number` 0) or W2 (1) of the projection that gives a block's router rows."""
    return f"{router(layer)}.projection.{number}.weight"


def norm(layer: int, name: str) -> str:
    """Return a norm of a block by its name."""
    return f"{block(layer)}.{name}.weight"


def input_norm(layer: int) -> str:
    """Return a Llama's norm before attention; in a parallel block it is before the FFN too."""
    return norm(layer, "input_layernorm")


def ffn_norm(layer: int) -> str:
    """Return a Llama's norm before the FFN; parallel blocks have none."""
    return norm(layer, "post_attention_layernorm")


def as_routed_expert(name: str, number: int) -> str:
    """Return the name of a dense FFN or attention tensor as part of expert `number`."""
    part = ".mlp." if is_ffn(name) else ".self_attn."
    return name.replace(part, f"{part}experts.{number}.")


def as_shared_expert(name: str) -> str:
    """Return the name of a dense FFN tensor as part of the shared expert."""
    return name.replace(".mlp.", ".mlp.shared_expert.")


def is_in_block(name: str) -> bool:
    """Tell whether a tensor belongs to a block: not embeddings, final norm or `lm_head`."""
    return ".layers." in name


def is_ffn(name: str) -> bool:
    """Tell whether a tensor belongs to an FFN; in a dense network it becomes an expert."""
    return ".mlp." in name


def is_attention(name: str) -> bool:
    """Tell whether a tensor belongs to attention."""
    return ".self_attn." in name


def is_key_value(name: str) -> bool:
    """Tell whether a tensor projects to keys or values."""
    return name.endswith((".k_proj.weight", ".v_proj.weight"))


def is_shared_expert(name: str) -> bool:
    """Tell whether a tensor belongs to the shared expert."""
    return ".mlp.shared_expert." in name


def is_routed_expert(name: str) -> bool:
    """Tell whether a tensor belongs to a routed expert of an FFN."""
    return ".mlp.experts." in name


def is_router(name: str) -> bool:
    """Tell whether a tensor belongs to a router or to the projection that gives its rows."""
    return ".mlp.gate." in name or ".self_attn.gate." in name


def is_router_rows(name: str) -> bool:
    """Tell whether a tensor holds the rows of an FFN router."""
    return name.endswith(".mlp.gate.weight")


def is_projection(name: str) -> bool:
    """Tell whether a tensor belongs to the projection that gives router rows."""
    return PROJECTION_PART in name


def is_computed_with(name: str) -> bool:
    """Tell whether inference reads a tensor; it needs no domain embeddings and no projection."""
    return not is_projection(name) and not name.endswith("domain_embeddings")


def is_rotary_frequency(name: str) -> bool:
    """Tell whether a tensor holds the frequencies of rotary embeddings, which old files store."""
    return name.endswith(".rotary_emb.inv_freq")


def expert_number(name: str) -> int:
    """Return the number of the expert that a tensor of a routed expert belongs to."""
    return int(name.partition(".mlp.experts.")[2].partition(".")[0])


def linear_in_block(name: str) -> tuple[str, int] | None:
    """Return module and layer of a weight of attention or FFN; None for any other tensor."""
    match = _LINEAR.fullmatch(name)
    return None if match is None else (match["module"], int(match["layer"]))


def input_of(name: str, *, is_tied: bool) -> str | None:
    """Return a name for what a linear outside FFNs reads; None for any other tensor.

    Queries, keys and values read the same states. Embeddings are a linear where they are the head
    too (`is_tied`).
    """
    if name == (EMBEDDINGS if is_tied else LM_HEAD + WEIGHT):
        return f"{LM_HEAD}.input"
    match = _ATTENTION_LINEAR.fullmatch(name)
    if match is None:
        return None
    return f"{match['attention']}{'.o_proj' if match['part'] == 'o' else ''}.input"


def split_attention_expert(name: str) -> tuple[str, int, str] | None:
    """Split a weight of an attention expert into attention module, expert number and the rest.

    Return None for any other tensor.
    """
    match = _ATTENTION_EXPERT.fullmatch(name)
    return None if match is None else (match["attention"], int(match["expert"]), match["part"])
