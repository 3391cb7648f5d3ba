"""Describe a network without torch: dimensions, experts, routing, and shapes of its tensors.

Both implementations read it: `assembler.network.model` (readable) and `engine.vllm_plugin.model`
(fast). The registry checks checkpoints with it.
"""

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from registry.bases.base import Axes, Base
from registry.bases.supported import BASES, LLAMA
from registry.checkpoints import config_fields, tensor_names
from registry.errors import InvalidCheckpoint, Problem

Combine = Literal["convex", "sum"]
Router = Literal["nexus", "linear", "mlp"]
Attention = Literal["average", "experts", "experts-shared-kv"]
Shape = tuple[int, ...]

MIX_ARCHITECTURE = "NexusForCausalLM"
# Before the name of the base's own class, in a mix of any base but a plain Llama.
MIX_PREFIX = "Nexus"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of a supported base, dense (`num_experts == 0`) or a mixture.

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
    base_model_type: str = LLAMA.model_type
    # The values of the base's own fields, as transformers writes them. Empty for a plain Llama: one
    # without biases and without scaled positions.
    base_fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Read the `config.json` of a dense model or of a mix.

        Raises InvalidCheckpoint with every field that is missing or not supported.
        """
        values, problems = config_fields.read(config, fields(cls))
        if not problems:
            values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
            values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            architecture = cls(**values)
            problems += architecture.contradictions()
        if problems:
            raise InvalidCheckpoint(
                "config.json describes no supported model", problems=tuple(problems)
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
        if self.num_hidden_layers > config_fields.MAX_LAYERS:
            detail = f"at most {config_fields.MAX_LAYERS} are supported"
            yield Problem("/config/num_hidden_layers", detail)
        if not self.is_plain_llama:
            yield from self._only_of_llama()
        if not self.base.free_head_width and heads * self.head_dim != self.hidden_size:
            detail = f"is {self.head_dim}, {self.base.title} has {self.hidden_size} / {heads}"
            yield Problem("/config/head_dim", detail)
        if self.num_experts:
            yield from self._mixture_contradictions()
        if self.has_gaps:
            yield from self._gap_contradictions()

    def _only_of_llama(self) -> Iterator[Problem]:
        """Yield what only our own network of a plain Llama computes."""
        plain: dict[str, object] = {"attention": "average", "parallel_block": False}
        plain |= {"ffn_sizes": (), "layers_without_attention": ()}
        for name in plain:
            if (value := getattr(self, name)) != plain[name]:
                detail = f"is {value!r}, supported for a plain Llama only, not {self.base.title}"
                yield Problem(f"/config/{name}", detail)

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
        for name, allowed in counts.items():
            if (value := getattr(self, name)) not in allowed:
                detail = f"is {value}, of {self.num_experts} experts"
                yield Problem(f"/config/{name}", detail)
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
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        del values["base_fields"], values["base_model_type"]
        # Other programs know neither these parallel blocks nor removed parts.
        is_stock = self.num_experts == 0 and not self.parallel_block and not self.has_gaps
        if self.num_experts == 0:
            mixture_fields = {f.name for f in fields(self) if f.name in type(self).__dict__}
            values = {k: v for k, v in values.items() if k not in mixture_fields}
            if self.parallel_block:
                values["parallel_block"] = True
            if self.has_gaps:
                values["ffn_sizes"] = self.ffn_sizes
                values["layers_without_attention"] = self.layers_without_attention
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
        own = deepcopy(dict(self.base_fields))
        return self._base_config(is_stock=is_stock) | values | own

    def _base_config(self, *, is_stock: bool) -> dict[str, Any]:
        """Return the fields that tell which network it is, without sizes."""
        base = self.base
        # The class that vLLM looks up.
        mix = MIX_ARCHITECTURE if self.is_plain_llama else MIX_PREFIX + base.architecture
        config: dict[str, Any] = {
            "architectures": [base.architecture if is_stock else mix],
            "model_type": base.model_type if is_stock else "nexus",
            base.activation_field: base.config_activation,
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
        }
        if self.is_plain_llama:
            return config
        if not is_stock:
            config["base_model_type"] = base.model_type
        return config | {name: allowed[0] for name, allowed in base.fixed.items()}

    def tensor_shapes(self) -> dict[str, Shape]:
        """Return the shapes of all tensors by name, in the order of the layers."""
        shapes: dict[str, Shape] = {tensor_names.EMBEDDINGS: (self.vocab_size, self.hidden_size)}
        if self.has_projection:
            sizes = self.num_hidden_layers, self.num_experts, self.domain_embedding_size
            shapes[tensor_names.DOMAIN_EMBEDDINGS] = sizes
        for layer in range(self.num_hidden_layers):
            if has_attention := self.has_attention(layer):
                shapes |= self._attention_shapes(layer)
            if ffn_size := self.ffn_size(layer):
                shapes |= self._mlp_shapes(layer, ffn_size)
            for name in self.base.norms:
                shapes[tensor_names.norm(layer, name)] = (self.hidden_size,)
            if not has_attention:
                del shapes[tensor_names.input_norm(layer)]
            if not ffn_size or self.parallel_block:
                del shapes[tensor_names.ffn_norm(layer)]
        shapes[tensor_names.FINAL_NORM] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes[tensor_names.LM_HEAD + tensor_names.WEIGHT] = (self.vocab_size, self.hidden_size)
        return shapes

    @property
    def base(self) -> Base:
        """The base model, an entry of the list of supported ones."""
        return BASES[self.base_model_type]

    @property
    def is_plain_llama(self) -> bool:
        """Tell whether our own network computes it; otherwise that of transformers does."""
        return self.base is LLAMA and not self.base_fields

    @property
    def logit_soft_cap(self) -> float | None:
        """The limit c of `c tanh(logits / c)`, None without one."""
        cap: float | None = self.base_fields.get("final_logit_softcapping")
        return cap

    @property
    def logit_divisor(self) -> float:
        """The number by which logits are divided."""
        divisor: float = self.base_fields.get("logits_scaling", 1.0)
        return divisor

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
        shapes = self._shapes(self.base.attention_axes(self.base_fields))
        if self.num_experts == 0 or self.attention == "average":
            return {f"{module}.{n}": s for n, s in shapes.items()}
        shared = {n for n in shapes if self.attention == "experts-shared-kv" and n[0] in "kv"}
        own = {f"{module}.{n}": shapes[n] for n in shapes if n in shared}
        for expert in range(self.num_experts):
            module = tensor_names.attention_expert(layer, expert)
            own |= {f"{module}.{n}": s for n, s in shapes.items() if n not in shared}
        own[tensor_names.attention_router_rows(layer)] = (self.num_experts, self.hidden_size)
        return own

    def _shapes(self, axes: Axes, *, ffn_size: int = 0) -> dict[str, Shape]:
        """Return shapes for axes named by letters, see `registry.bases.base`."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        sizes = {"D": self.hidden_size, "C": self.head_dim, "Q": queries, "K": keys}
        sizes |= {"P": queries + 2 * keys, "F": ffn_size, "G": 2 * ffn_size}
        return {name: tuple(sizes[axis] for axis in letters) for name, letters in axes.items()}

    def _mlp_shapes(self, layer: int, ffn_size: int) -> dict[str, Shape]:
        ffn = self._shapes(self.base.ffn, ffn_size=ffn_size)
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
