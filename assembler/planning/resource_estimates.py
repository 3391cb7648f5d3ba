"""Estimate what each step of a mix reads, writes and needs in memory, from manifests alone.

Letters: P parameters, A active parameters of one token, T trained parameters.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from assembler.assembly.averaging import NUM_THREADS
from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import STATES_DTYPE
from assembler.assembly.regression import BLOCK_NUMBERS
from assembler.assembly.upcycle import is_expert
from assembler.planning.rank_memory import rank_memory
from assembler.recipes.recipe import GIVES_ROWS
from assembler.routing.embedder import states_shape
from assembler.routing.input_moments import MOMENTS_DTYPE, NUM_DIRECTIONS
from assembler.training.parallelism import Parallelism
from assembler.training.trainable import is_folded, trains
from engine.compression import int8_units
from engine.vllm_server import context
from registry.checkpoints.manifests import DTYPE_BYTES, TensorEntry
from registry.checkpoints.tensor_names import (
    DOMAIN_EMBEDDINGS,
    input_of,
    is_projection,
    is_router,
)

# Measured private memory of a process that has loaded its libraries and no model.
NUMPY_PROCESS = 80_000_000
TORCH_PROCESS = 300_000_000
# A checkpoint holds the float32 weight and two Adam moments of each trained parameter. The last
# checkpoint stays until the next is complete, so two exist at a time.
CHECKPOINT_BYTES = 2 * 12


@dataclass(frozen=True, kw_only=True)
class StepResources:
    """The resources of one step, in bytes.

    `kept` stays in the store; `scratch` is removed when the step ends. `memory` is the sum over all
    processes of the step. If there are several, `memory_per_process` is the memory of the largest.
    `work` is what the time grows with: bytes for an assembly or a start, floating point operations
    for all other steps.
    """

    read: int
    kept: int = 0
    scratch: int = 0
    memory: int
    memory_per_process: int | None = None
    work: float


def assembling(plan: Blueprint) -> StepResources:
    """Estimate an assembly: it reads and writes averages and writes routers; the rest is shared."""
    read = kept = averaging = 0
    for name, sources in _averages(plan):
        if any(source.digest != sources[0].digest for source in sources):
            read += sum(source.num_bytes for source in sources)
            kept += sources[0].num_bytes
            if plan.inputs.has_moments and (width := _regressed_width(plan, name)):
                read += plan.seed.tensors[name].num_bytes + _moment_bytes(plan, width)
                averaging = max(averaging, _regression_bytes(plan, width))
    router_read, router_kept = _routers(plan)
    read, kept = read + router_read, kept + router_kept
    reads_documents = plan.recipe.router_init in GIVES_ROWS and plan.recipe.kind == "mixture"
    # Rows from documents need hidden states of dense networks, and with them torch.
    memory = TORCH_PROCESS + 2 * plan.seed.num_bytes if reads_documents else NUMPY_PROCESS
    memory += _one_router(plan) + averaging
    return StepResources(read=read, kept=kept, memory=memory, work=read + kept)


def finetuning(plan: Blueprint) -> StepResources:
    """Estimate a finetune: 4 A + 2 T operations for each token.

    They are forward and backward through the active, and gradients of the trained parameters.
    """
    recipe, mix = plan.recipe.finetune, plan.mix
    shapes = mix.tensor_shapes()
    names = [name for name in shapes if trains(name, mix, recipe.train)]
    num_trained = sum(math.prod(shapes[name]) for name in names)
    changed = [*names, *(name for name in shapes if is_folded(name, mix))]
    tokens = recipe.num_steps * recipe.batch_size * recipe.sequence_length
    active = mix.num_active_parameters
    parallelism = Parallelism.of_settings()
    per_process = TORCH_PROCESS + rank_memory(mix, recipe, parallelism).total
    return StepResources(
        read=plan.num_bytes,
        kept=sum(plan.tensor_bytes[name] for name in changed),
        scratch=CHECKPOINT_BYTES * num_trained,
        memory=parallelism.num_processes * per_process,
        memory_per_process=per_process if parallelism.num_processes > 1 else None,
        work=tokens * (4.0 * active + 2.0 * min(num_trained, active)),
    )


def compressing(plan: Blueprint) -> StepResources:
    """Estimate a compression to int8.

    Each round tries every remaining unit, from its layer on, on half of the texts on average, since
    worse candidates are dropped early. Writing texts, measuring the best of each round and writing
    tensors cost little beside that.
    """
    wanted, mix = plan.recipe.compress, plan.mix
    assert wanted is not None
    units = int8_units.units_of(mix, plan.tensor_bytes, wanted.target)
    num_candidates = wanted.rounds * wanted.beam_width * len(units) / 2
    tokens = wanted.prompts * (wanted.prefix_tokens + wanted.completion_tokens)
    return StepResources(
        read=plan.num_bytes,
        kept=sum(unit.num_int8_bytes for unit in units),
        memory=TORCH_PROCESS + 4 * mix.num_parameters,
        work=2.0 * mix.num_active_parameters * tokens * (num_candidates / 4 + wanted.rounds + 2),
    )


def gating(plan: Blueprint) -> StepResources:
    """Estimate a gate that knows nothing of the parents.

    Seed and mixes read general text and the held-out text of every domain. An expert reads general
    text and that of its own domain. The mix writes its texts, reads them twice and is served.
    """
    policy, num_domains = plan.recipe.gates, len(plan.recipe.experts)
    recipe = plan.recipe
    wanted = (recipe.finetune.num_steps, recipe.compress, plan.base)
    num_mixes = 1 + sum(map(bool, wanted))
    dense, active = plan.seed.architecture.num_parameters, plan.mix.num_active_parameters
    every = (num_domains + 1) * policy.tokens_per_domain
    own = every if policy.measure_baselines else 2 * policy.tokens_per_domain
    # The seed, and the mean of seed and experts.
    num_dense = 1 + policy.measure_baselines
    texts = (num_domains + 1) * policy.prompts_per_domain
    texts *= policy.prefix_tokens + policy.completion_tokens
    operations = 2.0 * dense * (num_dense * every + num_domains * own)
    operations += 2.0 * num_mixes * active * every
    operations += 2.0 * texts * (3 + num_mixes) * active
    return StepResources(
        read=plan.seed.num_bytes
        + sum(expert.num_bytes for expert in plan.experts)
        + (num_mixes + 1) * plan.num_bytes,
        scratch=plan.seed.num_bytes,
        memory=TORCH_PROCESS + 4 * plan.mix.num_parameters + serving(plan).memory,
        work=operations,
    )


def serving(plan: Blueprint) -> StepResources:
    """Estimate the start of a vLLM server with the mix."""
    return StepResources(
        read=plan.num_bytes,
        memory=context.engine_bytes(plan.mix),
        work=plan.num_bytes,
    )


def _averages(plan: Blueprint) -> Iterator[tuple[str, list[TensorEntry]]]:
    """Yield each averaged tensor's name, with the entries that it is averaged from.

    See `assembler.assembly.upcycle` and `assembler.assembly.extend`.
    """
    recipe, base, experts = plan.recipe, plan.base, list(plan.experts)
    with_seed = recipe.kind == "dense_merge" or not recipe.shared_expert
    for name, entry in plan.seed.tensors.items():
        if recipe.kind == "mixture" and is_expert(name, plan.mix):
            continue
        if base is None:
            entries = [expert.tensors[name] for expert in experts]
            yield name, [*entries, entry] if with_seed else entries
        else:
            pairs = zip(recipe.experts, experts, strict=True)
            joining = [e.tensors[name] for ref, e in pairs if ref not in base.experts]
            leaving = [
                e.checkpoint.tensors[name]
                for ref, e in base.experts.items()
                if ref not in recipe.experts
            ]
            yield name, [base.mix.tensors[name], *joining, *leaving]


def _regressed_width(plan: Blueprint, name: str) -> int:
    """Return the width of the input of a tensor that is averaged by regression, 0 of any other."""
    dense = plan.seed.architecture
    read = input_of(name, is_tied=dense.tie_word_embeddings)
    return 0 if read is None else dense.tensor_shapes()[name][-1]


def _moment_bytes(plan: Blueprint, width: int) -> int:
    """Return the bytes of the moments of one input of all experts."""
    return len(plan.experts) * (1 + NUM_DIRECTIONS) * width * DTYPE_BYTES[MOMENTS_DTYPE]


def _regression_bytes(plan: Blueprint, width: int) -> int:
    """Return the memory of the threads that regress: blocks of rows, and moments in float64.

    Blocks are of each expert and of a few intermediate results. The moments are there as they are,
    scaled and solved.
    """
    blocks = 8 * max(BLOCK_NUMBERS, width) * (len(plan.experts) + 4)
    return NUM_THREADS * (blocks + 3 * 2 * _moment_bytes(plan, width))


def _routers(plan: Blueprint) -> tuple[int, int]:
    """Return the bytes that are read and written for routers."""
    read = kept = 0
    for name in plan.tensor_bytes:
        if not is_router(name) and name != DOMAIN_EMBEDDINGS:
            continue
        is_referred = is_projection(name) and (
            plan.base is not None or plan.recipe.router_init == "projection"
        )
        kept += 0 if is_referred else plan.tensor_bytes[name]
        if plan.base is not None:
            read += plan.base.mix.tensors[name].num_bytes
    if plan.projection is not None:
        # The base's learned projection is read as well.
        read += plan.projection.num_bytes
    if plan.recipe.embeds_with_states:
        dense = plan.seed.architecture
        states = states_shape(dense.num_hidden_layers, dense.hidden_size)
        read += len(plan.experts) * math.prod(states) * DTYPE_BYTES[STATES_DTYPE]
    return read, kept


def _one_router(plan: Blueprint) -> int:
    """Return the bytes of two float32 copies of the largest router: as read, and as computed."""
    largest = max(
        (math.prod(shape) for name, shape in plan.mix.tensor_shapes().items() if is_router(name)),
        default=0,
    )
    return 2 * 4 * largest
