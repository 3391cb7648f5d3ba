"""What one process of a finetune holds in memory, part by part, told from shapes alone.

Of a process with the most of everything: FSDP2 cuts every tensor along its first axis into parts of
`ceil(rows / processes)`. Exact for what lasts (weights, gradients, moments); of activations and
buffers a model, held to within a tenth by its test, that assumes tokens evenly spread over experts.
What libraries and allocators keep for themselves comes on top.

Letters: T tokens of one process, D hidden, F FFN inner, H query heads, G key-value heads, C head
width, K experts per token, V vocabulary, P processes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from assembler.compute_dtype import ComputingDtype
from assembler.recipes.recipe import Finetune
from assembler.training.parallelism import Parallelism
from assembler.training.trainable import DOMAIN_EMBEDDINGS, trains
from registry.checkpoints.architecture import Architecture, Shape

FLOAT32 = 4
DTYPE_BYTES: Mapping[ComputingDtype, int] = {"bfloat16": 2, "float32": 4}
# Tokens whose logits exist at one time, as in `assembler.training.losses`, which needs torch.
LOGIT_TOKENS = 512
# Of width D, what the two norms of a block keep in float32 for the backward pass: their inputs and,
# where they train, what they make of them.
KEPT_NORMS, KEPT_TRAINED_NORMS = 2, 4
# Of width D, copies that autocast makes of float32 states for one product each.
AUTOCAST_COPIES = 5
# Of width F, what an FFN keeps: gate, its SiLU and up; of one that trains, their product as well.
KEPT_INNER, KEPT_TRAINED_INNER = 3, 4
# Of Adam, for each parameter.
MOMENTS = 2
# Blocks whose whole weights exist at one time: the one that is computed and the next.
GATHERED_BLOCKS = 2
# Copies of a block's dispatched rows at one time: sorted, arrived, sorted again, and computed.
DISPATCHED_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Bytes. Of one process alone nothing is gathered or dispatched."""

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
    """Of the process of a finetune that holds most."""
    spread = _ShardedNetwork(mix, recipe, parallelism)
    trained = spread.numbers(spread.trained)
    return RankMemory(
        frozen_weights=spread.width * spread.numbers(spread.frozen) + spread.embeddings,
        trained_weights=FLOAT32 * trained,
        gradients=FLOAT32 * trained,
        moments=MOMENTS * FLOAT32 * trained,
        activations=spread.activations(),
        gathered=spread.gathered(),
        dispatch=spread.dispatch(),
        logits=spread.logits(),
    )


class _ShardedNetwork:
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
        """Those of domains are the same everywhere."""
        return FLOAT32 * math.prod(self.mix.tensor_shapes().get(DOMAIN_EMBEDDINGS, (0,)))

    def numbers(self, names: Iterable[str]) -> int:
        """How many numbers of these tensors the process keeps between steps."""
        return sum(self._kept(name, self.shapes[name]) for name in names)

    def _kept(self, name: str, shape: Shape) -> int:
        processes, degree = self.parallelism.num_processes, self._degree
        if _is_expert(name) and degree > 1:
            return _part(shape, -(-processes // degree)) if self._is_kept(name) else 0
        return _part(shape, processes)

    @property
    def _degree(self) -> int:
        return self.parallelism.expert_parallel_degree

    def activations(self) -> int:
        """What is kept of T tokens for the backward pass, and copies of weights with it."""
        # Below the first block's mixture nothing trains, where only mixtures do.
        first = self._block(whole=self.recipe.train in ("attention", "all"))
        others = (self.mix.num_hidden_layers - 1) * self._block(whole=True)
        last_norm = KEPT_TRAINED_NORMS if self.recipe.train == "all" else KEPT_NORMS
        last_norm *= self.mix.hidden_size * FLOAT32 // 2
        return self.num_tokens * (first + others + last_norm) + self._weight_copies()

    def _block(self, *, whole: bool) -> int:
        """Bytes for each token; `whole` where gradients go through all of the block."""
        mix, train = self.mix, self.recipe.train
        hidden, full = self._mixture_states(), 0
        if whole:
            full = KEPT_TRAINED_NORMS if train == "all" else KEPT_NORMS
            hidden += train in ("attention", "all")
            hidden += AUTOCAST_COPIES * (train == "all" and self.width != FLOAT32)
        states = mix.hidden_size * (hidden * self.width + full * FLOAT32)
        return states + whole * self._attention() + self._inner(whole=whole)

    def _mixture_states(self) -> int:
        """Of width D: the router's input, the shared expert's output, those of K experts and, of
        experts that train, as many inputs."""
        mix = self.mix
        rows = mix.num_experts_per_tok * (1 + self._trains("experts"))
        return 1 + mix.shared_expert + rows if mix.num_experts else 1

    def _attention(self) -> int:
        """Queries, their outputs, keys and values; probabilities are not kept by fused kernels."""
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
        """Of one process, what autocast makes of matrices that train and keeps as long."""
        if not self.is_one or self.width == FLOAT32:
            return 0
        matrices = (self.shapes[name] for name in self.trained if ".layers." in name)
        return self.width * sum(math.prod(shape) for shape in matrices if len(shape) > 1)

    def gathered(self) -> int:
        """Whole blocks and what is whole in all of a step, with gradients before they are cut."""
        if self.is_one:
            return 0
        block = [name for name in self.shapes if name.startswith("model.layers.0.")]
        outside = [name for name in self.shapes if ".layers." not in name]
        whole = GATHERED_BLOCKS * self.width * self._whole(block)
        # Gradients of a block in the dtype of computing, and as float32 on their way.
        whole += (self.width + FLOAT32) * self._whole(n for n in block if n in self.trained)
        for name in outside:
            trained = name in self.trained
            whole += (3 * FLOAT32 if trained else self.width) * math.prod(self.shapes[name])
        return whole

    def _whole(self, names: Iterable[str]) -> int:
        """Numbers of these tensors of a block, of experts those that this process computes."""
        return sum(math.prod(self.shapes[name]) for name in names if self._is_kept(name))

    def _is_kept(self, name: str) -> bool:
        """Whether the first process of a group, which stands for all, has it."""
        num_kept = -(-self.mix.num_experts // self._degree)
        return not _is_expert(name) or _expert(name) < num_kept

    def dispatch(self) -> int:
        if self._degree == 1 or not self.mix.num_experts:
            return 0
        rows = self.num_tokens * self.mix.num_experts_per_tok
        return DISPATCHED_COPIES * rows * self.mix.hidden_size * self.width

    def logits(self) -> int:
        """Those of some tokens, the gradient of the last states, the head in the dtype of computing
        and, where it trains, its gradient."""
        mix = self.mix
        buffer = min(LOGIT_TOKENS, self.num_tokens) * mix.vocab_size * self.width
        states = self.num_tokens * mix.hidden_size * self.width
        head = mix.vocab_size * mix.hidden_size
        if self.recipe.train != "all":
            return buffer + states
        copied = head * self.width if self.width != FLOAT32 else 0
        return buffer + states + copied + FLOAT32 * head


def _is_expert(name: str) -> bool:
    return ".mlp.experts." in name


def _expert(name: str) -> int:
    return int(name.partition(".mlp.experts.")[2].partition(".")[0])


def _part(shape: Shape, processes: int) -> int:
    """Numbers of the largest of so many parts along the first axis."""
    rows, *others = shape
    return -(-rows // processes) * math.prod(others)
