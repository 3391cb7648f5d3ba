"""What each step of a mix moves, keeps and holds in memory, told from manifests alone.

Letters: P parameters, A those that one token meets, T those that train.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import STATES_DTYPE
from assembler.assembly.upcycle import is_expert
from assembler.planning.rank_memory import rank_memory
from assembler.routing.embedder import states_shape
from assembler.training.parallelism import Parallelism
from assembler.training.trainable import DOMAIN_EMBEDDINGS, is_folded, trains
from engine.compression import int8_units
from engine.serving.vllm_process import KV_CACHE_GIB
from engine.vllm_build import serving_dtype
from registry.checkpoints.manifests import DTYPE_BYTES, TensorEntry

# Private memory of a process that has loaded what it needs, and no model yet (measured).
NUMPY_PROCESS = 80_000_000
TORCH_PROCESS = 300_000_000
VLLM_PROCESS = 1_500_000_000
# Of a parameter that trains, a checkpoint has the float32 weight and the two moments of Adam; the
# last one stays until the next is whole.
CHECKPOINT_BYTES = 2 * 12


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Of one step, in bytes. `kept` stays in the store, `scratch` is gone when the step ends.

    `work` is what its time grows with: bytes of an assembly or a start, else floating point
    operations. `memory` is that of all processes of the step, `memory_per_process` of the one with
    most where they are many.
    """

    read: int
    kept: int = 0
    scratch: int = 0
    memory: int
    memory_per_process: int | None = None
    work: float


def assembling(plan: Blueprint) -> Footprint:
    """Means are read and written, and routers written; all else is referred to."""
    read = kept = 0
    for sources in _means(plan):
        if any(source.digest != sources[0].digest for source in sources):
            read += sum(source.num_bytes for source in sources)
            kept += sources[0].num_bytes
    router_read, router_kept = _routers(plan)
    read, kept = read + router_read, kept + router_kept
    reads_documents = plan.recipe.router_init == "documents" and plan.recipe.preset != "merge"
    # Rows from documents need the seed's hidden states, and with them torch.
    memory = TORCH_PROCESS + 2 * plan.seed.num_bytes if reads_documents else NUMPY_PROCESS
    return Footprint(read=read, kept=kept, memory=memory + _one_router(plan), work=read + kept)


def finetuning(plan: Blueprint) -> Footprint:
    """Forward and backward through A, and gradients of T: 4 A + 2 T operations for each token."""
    recipe, mix = plan.recipe.finetune, plan.mix
    shapes = mix.tensor_shapes()
    names = [name for name in shapes if trains(name, mix, recipe.train)]
    num_trained = sum(math.prod(shapes[name]) for name in names)
    changed = [*names, *(name for name in shapes if is_folded(name, mix))]
    tokens = recipe.num_steps * recipe.batch_size * recipe.sequence_length
    active = mix.num_active_parameters
    parallelism = Parallelism.of_settings()
    per_process = TORCH_PROCESS + rank_memory(mix, recipe, parallelism).total
    return Footprint(
        read=plan.num_bytes,
        kept=sum(plan.tensor_bytes[name] for name in changed),
        scratch=CHECKPOINT_BYTES * num_trained,
        memory=parallelism.num_processes * per_process,
        memory_per_process=per_process if parallelism.num_processes > 1 else None,
        work=tokens * (4.0 * active + 2.0 * min(num_trained, active)),
    )


def compressing(plan: Blueprint) -> Footprint:
    """In each round every unit that is left is tried: read from its layer on, by half of the texts
    on the mean, as the worse candidates are dropped early. Small beside it: writing the texts,
    measuring each round's best, and the tensors themselves."""
    wanted, mix = plan.recipe.compress, plan.mix
    assert wanted is not None
    units = int8_units.units_of(mix, plan.tensor_bytes, wanted.target)
    num_candidates = wanted.rounds * wanted.beam_width * len(units) / 2
    tokens = wanted.prompts * (wanted.prefix_tokens + wanted.completion_tokens)
    return Footprint(
        read=plan.num_bytes,
        kept=sum(unit.num_int8_bytes for unit in units),
        memory=TORCH_PROCESS + 4 * mix.num_parameters,
        work=2.0 * mix.num_active_parameters * tokens * (num_candidates / 4 + wanted.rounds + 2),
    )


def gating(plan: Blueprint) -> Footprint:
    """Every network reads the held-out text once; the mix writes, reads twice and is served."""
    policy, num_domains = plan.recipe.gates, len(plan.recipe.experts)
    recipe = plan.recipe
    wanted = (recipe.finetune.num_steps, recipe.compress, plan.base)
    num_mixes = 1 + sum(map(bool, wanted))
    dense, active = plan.seed.architecture.num_parameters, plan.mix.num_active_parameters
    # The seed, the experts and their plain mean.
    num_dense = len(plan.experts) + 2
    held_out = num_domains * policy.tokens_per_domain
    texts = num_domains * policy.prompts_per_domain
    texts *= policy.prefix_tokens + policy.completion_tokens
    operations = 2.0 * held_out * (num_dense * dense + num_mixes * active)
    operations += 2.0 * texts * (3 + num_mixes) * active
    return Footprint(
        read=plan.seed.num_bytes
        + sum(expert.num_bytes for expert in plan.experts)
        + (num_mixes + 1) * plan.num_bytes,
        scratch=plan.seed.num_bytes,
        memory=TORCH_PROCESS + 4 * plan.mix.num_parameters + serving(plan).memory,
        work=operations,
    )


def serving(plan: Blueprint) -> Footprint:
    width = 4 if serving_dtype() == "float32" else 2
    return Footprint(
        read=plan.num_bytes,
        memory=VLLM_PROCESS + width * plan.mix.num_parameters + (KV_CACHE_GIB << 30),
        work=plan.num_bytes,
    )


def _means(plan: Blueprint) -> Iterator[list[TensorEntry]]:
    """What is averaged, tensor by tensor; see `assembler.assembly.upcycle` and
    `assembler.assembly.extend`."""
    recipe, base, experts = plan.recipe, plan.base, list(plan.experts)
    with_seed = recipe.preset == "merge" or not recipe.shared_expert
    for name, entry in plan.seed.tensors.items():
        if recipe.preset != "merge" and is_expert(name, plan.mix):
            continue
        if base is None:
            own = [expert.tensors[name] for expert in experts]
            yield [*own, entry] if with_seed else own
        else:
            pairs = zip(recipe.experts, experts, strict=True)
            joining = [e.tensors[name] for ref, e in pairs if ref not in base.experts]
            leaving = [
                e.tensors[name] for ref, e in base.experts.items() if ref not in recipe.experts
            ]
            yield [base.mix.tensors[name], *joining, *leaving]


def _routers(plan: Blueprint) -> tuple[int, int]:
    """Bytes read and written for them."""
    read = kept = 0
    for name in plan.tensor_bytes:
        if ".gate." not in name and name != DOMAIN_EMBEDDINGS:
            continue
        is_referred = ".gate.projection." in name and (
            plan.base is not None or plan.recipe.router_init == "projection"
        )
        kept += 0 if is_referred else plan.tensor_bytes[name]
        if plan.base is not None:
            read += plan.base.mix.tensors[name].num_bytes
    if plan.projection is not None:
        # What a base has learned since is read beside it.
        read += plan.projection.num_bytes
    if plan.recipe.embeds_with_states:
        dense = plan.seed.architecture
        states = states_shape(dense.num_hidden_layers, dense.hidden_size)
        read += len(plan.experts) * math.prod(states) * DTYPE_BYTES[STATES_DTYPE]
    return read, kept


def _one_router(plan: Blueprint) -> int:
    """Weights of one block's router in float32, as they are read and once computed with."""
    largest = max(
        (math.prod(shape) for name, shape in plan.mix.tensor_shapes().items() if ".gate." in name),
        default=0,
    )
    return 2 * 4 * largest
