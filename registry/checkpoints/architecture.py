"""Describe a network without torch: dimensions, experts, routing, and shapes of its tensors.

Both implementations read it: `assembler.network.model` (readable) and `engine.vllm_plugin.model`
(fast). The registry checks checkpoints with it.
"""

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin

from registry.checkpoints import config_fields, tensor_names
from registry.errors import InvalidCheckpoint, Problem

Combine = Literal["convex", "sum"]
Router = Literal["nexus", "linear", "mlp"]
Attention = Literal["average", "experts", "experts-shared-kv"]
Shape = tuple[int, ...]

MIX_ARCHITECTURE = "NexusForCausalLM"
DENSE_ARCHITECTURE = "LlamaForCausalLM"

# Far above every real model; the limits keep a hostile config.json from using much memory.
MAX_SIZE = 2**31
MAX_LAYERS = 1024


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A Llama-family network, dense (`num_experts == 0`) or a mixture.

    The fields have the names of `config.json`. Shapes in the rest of the code use these letters: T
    tokens, D hidden size, F inner size of an FFN, N routed experts, M size of a domain embedding, L
    layers, V vocabulary.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tie_word_embeddings: bool

    num_experts: int = 0
    num_experts_per_tok: int = 1
    expert_names: tuple[str, ...] = ()
    shared_expert: bool = True
    combine: Combine = "convex"
    router: Router = "nexus"
    attention: Attention = "average"
    parallel_block: bool = False
    domain_embedding_size: int = 0
    disabled_experts: tuple[int, ...] = ()
    # Divide the probabilities of the chosen experts by their sum.
    norm_topk_prob: bool = False
    # Hidden size of the router `mlp`; 0 for other routers.
    router_hidden_size: int = 0
    # 0: every token takes all attention experts (BAM's soft routing).
    num_attention_experts_per_tok: int = 0
    # Only in a dense network with removed parts: the inner size of the FFN of each layer (0: no
    # FFN), and the layers without attention. Empty if nothing was removed.
    ffn_sizes: tuple[int, ...] = ()
    layers_without_attention: tuple[int, ...] = ()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Read the `config.json` of a dense Llama or of a mix.

        Raises InvalidCheckpoint with every field that is missing or not supported.
        """
        problems = config_fields.unsupported(config)
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in config.items() if k in known and v is not None}
        values = {k: v for k, v in config_fields.DEFAULTS.items() if k in known} | values
        values["rope_theta"] = config_fields.rope_theta(config)
        if "num_attention_heads" in values:
            values.setdefault("num_key_value_heads", values["num_attention_heads"])
        problems += _invalid(values, optional={"head_dim"})
        if not problems:
            values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
            values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            architecture = cls(**values)
            problems += architecture.contradictions()
        if problems:
            raise InvalidCheckpoint(
                "config.json is not a Llama-family model", problems=tuple(problems)
            )
        return architecture

    def contradictions(self) -> Iterator[Problem]:
        """Yield the fields that contradict each other, each with a pointer."""
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads:
            detail = f"is {self.hidden_size}, must be a multiple of {heads} heads"
            yield Problem("/config/hidden_size", detail)
        if heads % groups:
            yield Problem("/config/num_key_value_heads", f"is {groups}, must divide {heads} heads")
        if self.num_hidden_layers > MAX_LAYERS:
            yield Problem("/config/num_hidden_layers", f"at most {MAX_LAYERS} are supported")
        if self.num_experts:
            yield from self._mixture_contradictions()
        if self.has_gaps:
            yield from self._gap_contradictions()

    def _gap_contradictions(self) -> Iterator[Problem]:
        layers, sizes = range(self.num_hidden_layers), range(self.intermediate_size + 1)
        if self.num_experts or self.parallel_block:
            detail = "parts can only be removed from a dense network without parallel blocks"
            yield Problem("/config/ffn_sizes", detail)
        if self.ffn_sizes and len(self.ffn_sizes) != len(layers):
            detail = f"has {len(self.ffn_sizes)} widths, of {len(layers)} layers"
            yield Problem("/config/ffn_sizes", detail)
        if strays := [s for s in self.ffn_sizes if type(s) is not int or s not in sizes]:
            detail = f"has {strays[0]!r}, expected widths up to {self.intermediate_size}"
            yield Problem("/config/ffn_sizes", detail)
        without = self.layers_without_attention
        if strays := [n for n in without if type(n) is not int or n not in layers]:
            yield Problem("/config/layers_without_attention", f"names no layer: {strays[0]!r}")
        elif len(set(without)) == len(layers):
            # vLLM would have no cache, and no token could attend to another.
            yield Problem("/config/layers_without_attention", "leaves no attention")

    def _mixture_contradictions(self) -> Iterator[Problem]:
        counts = {
            "num_experts_per_tok": range(1, self.num_experts + 1),
            "num_attention_experts_per_tok": range(self.num_experts + 1),
        }
        for field, allowed in counts.items():
            if (value := getattr(self, field)) not in allowed:
                detail = f"is {value}, of {self.num_experts} experts"
                yield Problem(f"/config/{field}", detail)
        if self.combine == "convex" and not self.shared_expert:
            yield Problem("/config/combine", "is 'convex', which needs a shared expert")
        if self.combine == "convex" and self.norm_topk_prob:
            detail = "leaves nothing to the shared expert of 'convex'"
            yield Problem("/config/norm_topk_prob", detail)
        if (self.router == "mlp") != (self.router_hidden_size > 0):
            detail = f"is {self.router_hidden_size} with router {self.router!r}"
            yield Problem("/config/router_hidden_size", detail)
        if strays := set(self.disabled_experts) - set(range(self.num_experts)):
            yield Problem("/config/disabled_experts", f"names no experts: {sorted(strays)}")
        elif len(set(self.disabled_experts)) == self.num_experts:
            yield Problem("/config/disabled_experts", "leaves no expert")

    def to_config(self) -> dict[str, Any]:
        """Return `config.json` as a JSON object that transformers, vLLM and `from_config` read."""
        dense = {f.name: getattr(self, f.name) for f in fields(self)}
        # Other programs know neither these parallel blocks nor removed parts.
        is_stock = self.num_experts == 0 and not self.parallel_block and not self.has_gaps
        if self.num_experts == 0:
            mixture_fields = {f.name for f in fields(self) if f.name in type(self).__dict__}
            dense = {k: v for k, v in dense.items() if k not in mixture_fields}
            if self.parallel_block:
                dense["parallel_block"] = True
            if self.has_gaps:
                dense["ffn_sizes"] = self.ffn_sizes
                dense["layers_without_attention"] = self.layers_without_attention
        for name, value in dense.items():
            if isinstance(value, tuple):
                dense[name] = list(value)
        return {
            "architectures": [DENSE_ARCHITECTURE if is_stock else MIX_ARCHITECTURE],
            "model_type": "llama" if is_stock else "nexus",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            **dense,
        }

    def tensor_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors by name, in the order of the layers."""
        shapes: dict[str, Shape] = {tensor_names.EMBEDDINGS: (self.vocab_size, self.hidden_size)}
        if self.has_projection:
            shapes[tensor_names.DOMAIN_EMBEDDINGS] = (
                self.num_hidden_layers,
                self.num_experts,
                self.domain_embedding_size,
            )
        for layer in range(self.num_hidden_layers):
            if has_attention := self.has_attention(layer):
                shapes |= self._attention_shapes(layer)
            if ffn_size := self.ffn_size(layer):
                shapes |= self._mlp_shapes(layer, ffn_size)
            if has_attention:
                shapes[tensor_names.input_norm(layer)] = (self.hidden_size,)
            if ffn_size and not self.parallel_block:
                shapes[tensor_names.ffn_norm(layer)] = (self.hidden_size,)
        shapes[tensor_names.FINAL_NORM] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes[tensor_names.LM_HEAD + tensor_names.WEIGHT] = (self.vocab_size, self.hidden_size)
        return shapes

    @property
    def has_gaps(self) -> bool:
        """Tell whether a part that every Llama has was removed."""
        return bool(self.ffn_sizes or self.layers_without_attention)

    def ffn_size(self, layer: int) -> int:
        """Return the inner size of the FFNs of a layer, 0 if it has none."""
        return self.ffn_sizes[layer] if self.ffn_sizes else self.intermediate_size

    def has_attention(self, layer: int) -> bool:
        """Tell whether a layer has attention."""
        return layer not in self.layers_without_attention

    @property
    def has_projection(self) -> bool:
        """Tell whether router rows are computed from domain embeddings by a projection."""
        return self.num_experts > 0 and self.router == "nexus"

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters that inference uses.

        Domain embeddings and projections are not counted.
        """
        return sum(
            math.prod(shape)
            for name, shape in self.tensor_shapes().items()
            if tensor_names.is_computed_with(name)
        )

    @property
    def num_active_parameters(self) -> int:
        """Return the number of parameters that one token is computed with.

        Of FFNs only the chosen experts count. Every attention expert counts, whatever
        `num_attention_experts_per_tok` is: both networks compute all of them, and discard what was
        not chosen.
        """
        active = 0.0
        for name, shape in self.tensor_shapes().items():
            if not tensor_names.is_computed_with(name):
                continue
            share = 1.0
            if tensor_names.is_routed_expert(name):
                share = self.num_experts_per_tok / self.num_experts
            active += share * math.prod(shape)
        return round(active)

    def _attention_shapes(self, layer: int) -> dict[str, Shape]:
        module = tensor_names.attention(layer)
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        query = {"q_proj.weight": (queries, self.hidden_size)}
        key_value = {f"{p}_proj.weight": (keys, self.hidden_size) for p in "kv"}
        output = {"o_proj.weight": (self.hidden_size, queries)}
        if self.num_experts == 0 or self.attention == "average":
            return {f"{module}.{n}": s for n, s in (query | key_value | output).items()}
        shared = key_value if self.attention == "experts-shared-kv" else {}
        per_expert = query | output if shared else query | key_value | output
        shapes: dict[str, Shape] = {f"{module}.{n}": s for n, s in shared.items()}
        for expert in range(self.num_experts):
            module = tensor_names.attention_expert(layer, expert)
            shapes |= {f"{module}.{n}": s for n, s in per_expert.items()}
        shapes[tensor_names.attention_router_rows(layer)] = (self.num_experts, self.hidden_size)
        return shapes

    def _mlp_shapes(self, layer: int, ffn_size: int) -> dict[str, Shape]:
        ffn: dict[str, Shape] = {
            "gate_proj.weight": (ffn_size, self.hidden_size),
            "up_proj.weight": (ffn_size, self.hidden_size),
            "down_proj.weight": (self.hidden_size, ffn_size),
        }
        if self.num_experts == 0:
            return {f"{tensor_names.ffn(layer)}.{n}": s for n, s in ffn.items()}
        shapes: dict[str, Shape] = {}
        if self.router == "nexus":
            shapes |= {
                f"{tensor_names.router(layer)}.{n}": s
                for n, s in projection_shapes(self.hidden_size, self.domain_embedding_size).items()
            }
        router_input = self.hidden_size
        if self.router == "mlp":
            router_input = self.router_hidden_size
            shapes[tensor_names.router_hidden(layer)] = (router_input, self.hidden_size)
        shapes[tensor_names.router_rows(layer)] = (self.num_experts, router_input)
        if self.shared_expert:
            module = tensor_names.shared_expert(layer)
            shapes |= {f"{module}.{n}": s for n, s in ffn.items()}
        for expert in range(self.num_experts):
            module = tensor_names.routed_expert(layer, expert)
            shapes |= {f"{module}.{n}": s for n, s in ffn.items()}
        return shapes


def projection_shapes(hidden_size: int, domain_embedding_size: int) -> dict[str, Shape]:
    """Return the shapes of a block's router projection: W1 [2D, M], W2 [D, D].

    See Nexus, section 3.
    """
    return {
        "projection.0.weight": (2 * hidden_size, domain_embedding_size),
        "projection.1.weight": (hidden_size, hidden_size),
    }


def _invalid(values: dict[str, Any], *, optional: set[str]) -> Iterator[Problem]:
    for field in fields(Architecture):
        at, value = f"/config/{field.name}", values.get(field.name)
        has_default = field.default is not MISSING
        least = 0 if has_default else 1
        if value is None:
            if not has_default and field.name not in optional:
                yield Problem(at, "is missing")
        elif field.type is int and not (type(value) is int and least <= value <= MAX_SIZE):
            yield Problem(at, f"is {value!r}, expected a whole number from {least} to {MAX_SIZE}")
        elif field.type is float and not (type(value) in (int, float) and 0 < value < math.inf):
            yield Problem(at, f"is {value!r}, expected a positive number")
        elif field.type is bool and type(value) is not bool:
            yield Problem(at, f"is {value!r}, expected true or false")
        elif get_origin(field.type) is Literal and value not in get_args(field.type):
            yield Problem(at, f"is {value!r}, supported: {get_args(field.type)}")
        elif get_origin(field.type) is tuple and not isinstance(value, list | tuple):
            yield Problem(at, f"is {value!r}, expected a list")
