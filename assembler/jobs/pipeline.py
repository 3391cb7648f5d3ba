"""Make a mix from its inputs, step by step: inputs and blobs in, a manifest out.

Jobs and `assembler.jobs.reproduction` call the same functions.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assembler.assembly import extend, upcycle
from assembler.assembly.inputs import MixInputs, MixParts
from assembler.progress import OnCount, OnMessage
from assembler.recipes.mix_architecture import mixture_of
from assembler.recipes.recipe import GIVES_ROWS
from assembler.routing import router_init
from assembler.routing.router_init import Domains, Routers
from registry.blobs import overlay_blobs
from registry.blobs.blobs import BlobStore
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_router_rows
from registry.settings import settings

if TYPE_CHECKING:
    from assembler.evaluation.general_text import GeneralText
    from assembler.evaluation.perplexities import GateCheckpoints
    from assembler.training.optimizer import Progress
    from engine.compression.int8_curve import Curve
    from engine.gates.mix_gate import GateReport
    from engine.vllm_server.vllm_process import Server

NOTHING = np.empty(0, np.float32)


def assemble(inputs: MixInputs, blobs: BlobStore) -> Manifest:
    """Assemble the mix. Raises Incompatible if its parts do not fit together."""
    recipe, parts = inputs.recipe, inputs.parts(blobs)
    seed, experts, base = parts.seed, parts.members, parts.base
    if recipe.kind == "dense_merge":
        return upcycle.merge([seed, *parts.experts], blobs)
    mix = mixture_of(recipe, seed.architecture, vector_size=len(inputs.vectors[0]))
    rows = _routers(parts, mix)
    if base is None:
        return upcycle.upcycle(recipe, mix, seed=seed, experts=experts, routers=rows, blobs=blobs)
    return extend.extend(
        recipe, mix, base=base, seed=seed, experts=experts, routers=rows, blobs=blobs
    )


def finetune(
    mix: Manifest,
    inputs: MixInputs,
    *,
    blobs: BlobStore,
    checkpoint_path: Path,
    on_progress: Callable[["Progress"], None],
    expert_parallel_degree: int = 1,
) -> Manifest:
    """Finetune a mix with the launcher of the settings; see `assembler.training.finetune`."""
    # Imported here: an assembly takes seconds, and does not load what only training needs.
    from assembler.training import finetune

    train = partial(
        finetune.finetune,
        mix,
        recipe=inputs.recipe.finetune,
        documents=inputs.parts(blobs).documents,
        new_experts=inputs.new_experts,
        base_digest=inputs.base_digest,
        checkpoint_path=checkpoint_path,
        on_progress=on_progress,
        expert_parallel_degree=expert_parallel_degree,
    )
    if settings().launcher == "ray":
        from assembler.training import ray_train

        return ray_train.run(train, checkpoint_path=checkpoint_path)
    return train(blobs=blobs)


def compress(
    mix: Manifest,
    inputs: MixInputs,
    *,
    blobs: BlobStore,
    on_progress: OnMessage,
) -> tuple[Manifest, "Curve"]:
    """Compress a mix as its recipe asks; return it with the curve of the search.

    The search reads other held-out documents than the gate, see `gate_documents`. Raises the errors
    of `assembler.compression.quantize`.
    """
    from assembler.compression.quantize import Compressor

    assert inputs.recipe.compress is not None
    compressor = Compressor(
        mix,
        [documents.split_held_out(texts)[0] for texts in inputs.parts(blobs).documents if texts],
        inputs.recipe.compress,
        blobs=blobs,
        on_progress=on_progress,
    )
    curve = compressor.curve()
    return compressor.write(curve.chosen), curve


def gate(
    checkpoints: "GateCheckpoints",
    inputs: MixInputs,
    *,
    general: "GeneralText | None",
    blobs: BlobStore,
    log_path: Path,
    find_server: Callable[[Manifest], "Server | None"] = lambda candidate: None,
    on_progress: OnCount,
) -> "GateReport":
    """Hold a mix against its parents, then measure and judge it by the policy of its recipe.

    `find_server` returns a server that serves the candidate already. Raises the errors of
    `construction.check` and `mix_gate.gate`.
    """
    from assembler.evaluation import construction, mix_gate

    with overlay_blobs.beside(blobs) as aside:
        made = construction.check(
            inputs.parts(aside), checkpoints, assemble=lambda: assemble(inputs, aside)
        )
    return mix_gate.gate(
        checkpoints,
        gate_documents(inputs, blobs),
        documents_digests=inputs.documents_digests,
        private=inputs.private,
        policy=inputs.recipe.gates,
        general=general,
        construction=made,
        blobs=blobs,
        log_path=log_path,
        find_server=find_server,
        on_progress=on_progress,
    )


def gate_documents(inputs: MixInputs, blobs: BlobStore) -> list[list[Document]]:
    """Return the documents that the gate reads, for each expert.

    A compressed mix is judged by those that its compression was not chosen by.
    """
    texts = inputs.parts(blobs).documents
    if inputs.recipe.compress is None:
        return texts
    return documents.judging_a_compression(texts)


def worst_condition(mix: Manifest, blobs: BlobStore) -> tuple[str, float]:
    """Return the router of a mixture whose rows are most alike, and its condition number."""
    conditions = {
        name: router_init.condition_number(numpy_tensors.read(blobs, entry))
        for name, entry in mix.tensors.items()
        if is_router_rows(name)
    }
    name = max(conditions, key=conditions.__getitem__)
    return name, conditions[name]


def _routers(parts: MixParts, mix: Architecture) -> Routers:
    recipe, base = parts.inputs.recipe, parts.base
    reads_documents = recipe.router_init in GIVES_ROWS
    return router_init.initial_routers(
        recipe,
        mix,
        seed=parts.seed,
        domains=Domains(
            states=parts.states if recipe.embeds_with_states else NOTHING,
            vectors=np.array(parts.inputs.vectors, np.float32),
            documents=parts.documents if reads_documents else (),
            experts=parts.experts,
        ),
        family=parts.projection,
        learned=None if base is None else extend.learned_routers(base, recipe),
        blobs=parts.blobs,
    )
