"""Describe one base model: what its `config.json` may say, and which tensors its blocks have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Activation = Literal["silu", "gelu_tanh"]
# Which layers attend to a window of tokens only: none, all, or those that `layer_types` names.
Windows = Literal["none", "all", "by layer"]
# `own`: vLLM has a network of its own. `transformers`: it runs transformers' network.
VllmNetwork = Literal["own", "transformers"]
FieldKind = Literal["flag", "flags of layers", "number", "number or null", "size", "size or null"]
# Shapes by name of a tensor within its module. Each letter is an axis: D hidden size, Q and K width
# of all query and of all key heads, P = Q + 2 K, C head width, F inner size of an FFN, G = 2 F.
Axes = Mapping[str, str]

PROJECTIONS: Axes = {
    "q_proj.weight": "QD",
    "k_proj.weight": "KD",
    "v_proj.weight": "KD",
    "o_proj.weight": "DQ",
}
QKV_BIASES: Axes = {"q_proj.bias": "Q", "k_proj.bias": "K", "v_proj.bias": "K"}
NORMS_OF_HEADS: Axes = {"q_norm.weight": "C", "k_norm.weight": "C"}
GATED_FFN: Axes = {"gate_proj.weight": "FD", "up_proj.weight": "FD", "down_proj.weight": "DF"}
FUSED_FFN: Axes = {"gate_up_proj.weight": "GD", "down_proj.weight": "DF"}
ATTENTION_BIAS = "attention_bias"


@dataclass(frozen=True)
class Field:
    """A field of a base's own, and what it means where it is left out."""

    kind: FieldKind
    default: object


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model. Its network is that of the class `architecture` in transformers.

    - `defaults` are the defaults of transformers for common fields that differ from Llama's.
    - `fields` are read from `config.json` and become part of the description.
    - `fixed` are fields of which only these values are supported; the first is the default.
    - `ropes` are the kinds of rotary embeddings that equal each other in both networks.
    - `stock_layout` is the class of other programs that can hold a mix exactly, if one is known.
    """

    title: str
    model_type: str
    architecture: str
    vllm: VllmNetwork = "own"
    activation: Activation = "silu"
    activation_field: str = "hidden_act"
    attention: Axes = field(default_factory=lambda: PROJECTIONS)
    # Whether `head_dim` may be another number than hidden size / heads.
    free_head_width: bool = False
    # Present only with `attention_bias`.
    attention_biases: Axes = field(default_factory=dict)
    ffn: Axes = field(default_factory=lambda: GATED_FFN)
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    # The norm whose output the FFN reads; None where it reads the plain sum.
    ffn_norm: str | None = "post_attention_layernorm"
    windows: Windows = "none"
    # Of layers with windows: every layer of this number has none.
    window_period: int = 1
    soft_caps: bool = False
    defaults: Mapping[str, object] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    ropes: tuple[str, ...] = ("default",)
    rope_theta: float = 10_000.0
    # Layers with a window have rotary embeddings of their own.
    rope_by_layer: bool = False
    partial_rotary: bool = False
    stock_layout: str | None = None
    int8: bool = True

    @property
    def attention_kind(self) -> str:
        """What attention does besides the plain definition, in words."""
        kinds = ["windows"] * (self.windows != "none") + ["soft caps"] * self.soft_caps
        return " and ".join(kinds) or "plain"

    @property
    def config_activation(self) -> str:
        """The name of the activation in `config.json`."""
        return "gelu_pytorch_tanh" if self.activation == "gelu_tanh" else self.activation

    def attention_axes(self, own: Mapping[str, Any]) -> Axes:
        """Return the tensors of an attention, given the values of the base's own fields."""
        has_biases = own.get(ATTENTION_BIAS, False)
        return {**self.attention, **(self.attention_biases if has_biases else {})}
