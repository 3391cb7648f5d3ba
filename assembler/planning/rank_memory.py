"""Estimate the memory of one process of a finetune from tensor shapes, part by part.

The estimate is for the process that needs most: FSDP2 shards every tensor along its first axis into
parts of `ceil(rows / processes)`. It is exact for weights, gradients and moments. For activations
and buffers it is a model that assumes an even number of tokens for each expert; its test holds it
to within a tenth. The memory of libraries and allocators comes on top.

Letters: T tokens of one process, D hidden, F FFN inner, H query heads, G key-value heads, C head
width, K experts per token, V vocabulary, P processes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from assembler.compute_dtype import ComputingDtype
from assembler.recipes.recipe import Finetune
from assembler.training.parallelism import Parallelism
from assembler.training.trainable import trains
from registry.checkpoints.architecture import Architecture, Shape
from registry.checkpoints.tensor_names import (
    DOMAIN_EMBEDDINGS,
    block,
    expert_number,
    is_in_block,
    is_routed_expert,
)

FLOAT32 = 4
DTYPE_BYTES: Mapping[ComputingDtype, int] = {"bfloat16": 2, "float32": 4}
# Tokens whose logits exist at one time. Equals the constant in `assembler.training.losses`, which
# cannot be imported here because it needs torch.
LOGIT_TOKENS = 512
# Float32 tensors of width D that the two norms of a block keep for the backward pass: their inputs,
# and their outputs if they train.
KEPT_NORMS, KEPT_TRAINED_NORMS = 2, 4
# Copies of width D that autocast makes of float32 states, one for each product.
AUTOCAST_COPIES = 5
# Tensors of width F that an FFN keeps: gate, its SiLU, up, and their product if the FFN trains.
KEPT_INNER, KEPT_TRAINED_INNER = 3, 4
# Moments that Adam keeps for each parameter.
MOMENTS = 2
# Blocks whose whole weights exist at one time: the current one and the next.
GATHERED_BLOCKS = 2
# Copies of a block's dispatched rows at one time: sorted, received, sorted again, and computed.
DISPATCHED_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Memory of one process, in bytes. A single process gathers and dispatches nothing."""

    frozen_weights: int
    trained_weights: int
    gradients: int
    moments: int
    activations: int
    gathered: int
    dispatch: int
    logits: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def rank_memory(mix: Architecture, recipe: Finetune, parallelism: Parallelism) -> RankMemory:
    """Estimate the memory of the process of a finetune that needs most."""
    network = _ShardedNetwork(mix, recipe, parallelism)
    trained = network.numbers(network.trained)
    return RankMemory(
        frozen_weights=network.width * network.numbers(network.frozen) + network.embeddings,
        trained_weights=FLOAT32 * trained,
        gradients=FLOAT32 * trained,
        moments=MOMENTS * FLOAT32 * trained,
        activations=network.activations(),
        gathered=network.gathered(),
        dispatch=network.dispatch(),
        logits=network.logits(),
    )


class _ShardedNetwork:
    """The tensors of one mix, and how a finetune shards them over its processes."""

    def __init__(self, mix: Architecture, recipe: Finetune, parallelism: Parallelism) -> None:
        self.mix, self.recipe, self.parallelism = mix, recipe, parallelism
        self.width = DTYPE_BYTES[recipe.dtype]
        sequences = -(-recipe.batch_size // parallelism.num_processes)
        self.num_tokens = sequences * recipe.sequence_length
        self.shapes = {n: s for n, s in mix.tensor_shapes().items() if n != DOMAIN_EMBEDDINGS}
        self.trained = {n for n in self.shapes if trains(n, mix, recipe.train)}
        self.frozen = self.shapes.keys() - self.trained

    @property
    def is_one(self) -> bool:
        return self.parallelism.num_processes == 1

    @property
    def embeddings(self) -> int:
        """Return the bytes of the domain embeddings, which every process holds."""
        return FLOAT32 * math.prod(self.mix.tensor_shapes().get(DOMAIN_EMBEDDINGS, (0,)))

    def numbers(self, names: Iterable[str]) -> int:
        """Return how many numbers of these tensors the process keeps between steps."""
        return sum(self._kept(name, self.shapes[name]) for name in names)

    def _kept(self, name: str, shape: Shape) -> int:
        processes, degree = self.parallelism.num_processes, self._degree
        if is_routed_expert(name) and degree > 1:
            return _part(shape, -(-processes // degree)) if self._is_kept(name) else 0
        return _part(shape, processes)

    @property
    def _degree(self) -> int:
        return self.parallelism.expert_parallel_degree

    def activations(self) -> int:
        """Return the bytes kept for the backward pass: activations and copies of weights."""
        # If only mixtures train, no gradient goes below the mixture of the first block.
        first = self._block(whole=self.recipe.train in ("attention", "all"))
        others = (self.mix.num_hidden_layers - 1) * self._block(whole=True)
        last_norm = KEPT_TRAINED_NORMS if self.recipe.train == "all" else KEPT_NORMS
        last_norm *= self.mix.hidden_size * FLOAT32 // 2
        return self.num_tokens * (first + others + last_norm) + self._weight_copies()

    def _block(self, *, whole: bool) -> int:
        """Return the bytes for each token; `whole` if gradients go through all of the block."""
        mix, train = self.mix, self.recipe.train
        hidden, full = self._mixture_states(), 0
        if whole:
            full = KEPT_TRAINED_NORMS if train == "all" else KEPT_NORMS
            hidden += train in ("attention", "all")
            hidden += AUTOCAST_COPIES * (train == "all" and self.width != FLOAT32)
        states = mix.hidden_size * (hidden * self.width + full * FLOAT32)
        return states + whole * self._attention() + self._inner(whole=whole)

    def _mixture_states(self) -> int:
        """Count the tensors of width D that a mixture keeps for each token.

        They are the router's input, the shared expert's output, the outputs of K experts, and their
        inputs if the experts train.
        """
        mix = self.mix
        rows = mix.num_experts_per_tok * (1 + self._trains("experts"))
        return 1 + mix.shared_expert + rows if mix.num_experts else 1

    def _attention(self) -> int:
        """Return the bytes of queries, outputs, keys and values; fused kernels keep no others."""
        mix = self.mix
        heads = 2 * mix.num_attention_heads + 2 * mix.num_key_value_heads
        experts = mix.num_experts if mix.num_experts and mix.attention != "average" else 1
        return experts * heads * mix.head_dim * self.width

    def _inner(self, *, whole: bool) -> int:
        mix = self.mix

        def kept(*, trains: bool) -> int:
            return KEPT_TRAINED_INNER if trains else KEPT_INNER * whole

        if not mix.num_experts:
            return kept(trains=True) * mix.intermediate_size * self.width
        routed = mix.num_experts_per_tok * kept(trains=self._trains("experts"))
        shared = mix.shared_expert * kept(trains=self._trains("shared"))
        return (routed + shared) * mix.intermediate_size * self.width

    def _trains(self, part: str) -> bool:
        return self.recipe.train in (part, "all")

    def _weight_copies(self) -> int:
        """Return the bytes of autocast's copies of trained matrices, on one process."""
        if not self.is_one or self.width == FLOAT32:
            return 0
        matrices = (self.shapes[name] for name in self.trained if is_in_block(name))
        return self.width * sum(math.prod(shape) for shape in matrices if len(shape) > 1)

    def gathered(self) -> int:
        """Return the bytes of gathered weights, and of gradients before they are scattered."""
        if self.is_one:
            return 0
        first = [name for name in self.shapes if name.startswith(f"{block(0)}.")]
        outside = [name for name in self.shapes if not is_in_block(name)]
        whole = GATHERED_BLOCKS * self.width * self._whole(first)
        # Gradients of a block in the compute dtype, and in float32 for their reduction.
        whole += (self.width + FLOAT32) * self._whole(n for n in first if n in self.trained)
        for name in outside:
            trained = name in self.trained
            whole += (3 * FLOAT32 if trained else self.width) * math.prod(self.shapes[name])
        return whole

    def _whole(self, names: Iterable[str]) -> int:
        """Count the numbers of these tensors; of experts only those that this process computes."""
        return sum(math.prod(self.shapes[name]) for name in names if self._is_kept(name))

    def _is_kept(self, name: str) -> bool:
        """Tell whether the first process of a group has the tensor; it stands for all processes."""
        num_kept = -(-self.mix.num_experts // self._degree)
        return not is_routed_expert(name) or expert_number(name) < num_kept

    def dispatch(self) -> int:
        if self._degree == 1 or not self.mix.num_experts:
            return 0
        rows = self.num_tokens * self.mix.num_experts_per_tok
        return DISPATCHED_COPIES * rows * self.mix.hidden_size * self.width

    def logits(self) -> int:
        """Return the bytes of the loss: logits of some tokens, the gradient of the last states, the
        head in the compute dtype, and its gradient if it trains."""
        mix = self.mix
        buffer = min(LOGIT_TOKENS, self.num_tokens) * mix.vocab_size * self.width
        states = self.num_tokens * mix.hidden_size * self.width
        head = mix.vocab_size * mix.hidden_size
        if self.recipe.train != "all":
            return buffer + states
        copied = head * self.width if self.width != FLOAT32 else 0
        return buffer + states + copied + FLOAT32 * head


def _part(shape: Shape, processes: int) -> int:
    """Count the numbers of the largest part when the first axis is divided among processes."""
    rows, *others = shape
    return -(-rows // processes) * math.prod(others)
