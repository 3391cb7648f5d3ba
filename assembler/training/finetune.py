"""Finetune an assembled mix on a mixture of its experts' documents.

A Nexus router is trained through its projection; its rows are computed from the projection again at
the end. One process and many under torchrun run the same code; many shard the network (FSDP2).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from assembler.network.model import Network
from assembler.network.moe import project
from assembler.recipes.recipe import Finetune, Trained
from assembler.training.batches import DomainBatches, TokenReader
from assembler.training.checkpoints import Checkpoints
from assembler.training.collapse_guard import CollapseGuard
from assembler.training.distributed import World, gather_trained, process_group, shard_network
from assembler.training.domain_loss_choice import choose_domain_loss
from assembler.training.optimizer import (
    DTYPES,
    Clock,
    OnStep,
    learning_rate_factor,
    optimizer_of,
    set_learning_rates,
)
from assembler.training.parallelism import Parallelism
from assembler.training.train_step import take_step
from assembler.training.trainable import has_part, trains
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints import tensor_names
from registry.checkpoints.manifests import Manifest, TensorEntry, json_digest
from registry.checkpoints.tensor_names import is_router
from registry.errors import InvalidInput, Problem

CHECKPOINT_STEPS = 10
# The field of the recipe that a finetune may choose itself.
DOMAIN_LOSS_Q = "domain_loss_q"
# Mixed into the seed so that documents are drawn in another order than in an expert's own training
# with the same seed. Otherwise a short finetune would see only what an expert already knows by
# heart.
ORDER = int.from_bytes(b"finetune")


def finetune(
    mix: Manifest,
    *,
    recipe: Finetune,
    documents: Sequence[Sequence[Document]],
    blobs: BlobStore,
    checkpoint_path: Path,
    on_progress: OnStep,
    new_experts: frozenset[int] = frozenset(),
    base_digest: str | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    expert_parallel_degree: int = 1,
) -> Manifest:
    """Train the part `recipe.train` of a mix for `recipe.tokens`; return the resulting manifest.

    `documents` are the experts' documents in the order of the mix's `expert_names`; the training
    split is used, and a domain without documents is not read. `base_digest` names the manifest that
    the mix was made from, if any, and the experts in `new_experts`, which the base lacks, give
    `recipe.new_share` of the sequences. An interrupted run continues from `checkpoint_path`, also
    with another number of processes; the caller removes that path once the result is recorded. Only
    changed tensors are written, all by the first process; the other processes return `mix`.

    Raises InvalidInput when the mix has no such part or an expert has too little text. Raises
    StepFailed when the mix does not fit the processes (`assembler.training.parallelism`) or the
    training diverges (`assembler.training.collapse_guard`).
    """
    if recipe.num_steps == 0:
        return mix
    _check_part(mix, recipe.train)
    batches = training_batches(
        mix,
        documents,
        recipe=recipe,
        new_experts=new_experts,
        base_digest=base_digest,
        blobs=blobs,
    )
    with process_group() as world:
        parallelism = Parallelism(
            num_processes=world.size, expert_parallel_degree=expert_parallel_degree
        )
        parallelism.check(num_experts=mix.architecture.num_experts, batch_size=recipe.batch_size)
        network = shard_network(
            _trainable(mix, blobs, recipe),
            world,
            prepare=partial(_to_float32, mix=mix, blobs=blobs),
            dtype=DTYPES[recipe.dtype],
            expert_parallel_degree=expert_parallel_degree,
        )
        optimizer = optimizer_of(
            (parameter, recipe.router_learning_rate if is_router(name) else recipe.learning_rate)
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        )
        checkpoints = Checkpoints(
            checkpoint_path, network=network, optimizer=optimizer, world=world
        )
        recipe = _with_choices(recipe, checkpoints, batches, network=network, world=world)
        first_step = checkpoints.resume()
        clock = Clock(recipe, first_step)
        guard = CollapseGuard(mix.architecture.expert_names, saved_step=first_step)
        for step in range(first_step, recipe.num_steps):
            batch = batches.batch(step).shard(
                world.rank, num_shards=world.size, device=world.device
            )
            set_learning_rates(optimizer, learning_rate_factor(recipe, step))
            result = take_step(
                batch, network=network, optimizer=optimizer, recipe=recipe, world=world
            )
            guard.check(step + 1, result)
            if world.rank == 0:
                on_progress(
                    clock.progress(
                        step + 1,
                        result.loss,
                        expert_shares=result.shares,
                        domain_loss_q=recipe.domain_loss_q,
                    )
                )
            if (step + 1) % checkpoint_steps == 0:
                checkpoints.save(step + 1)
                guard.saved_step = step + 1
        return _write_trained(mix, gather_trained(network, world), blobs)


def _check_part(mix: Manifest, train: Trained) -> None:
    """Raise InvalidInput when the mix lacks the part to train."""
    if not has_part(mix.architecture, train):
        problem = Problem("/finetune/train", f"this mix has no part {train!r}")
        raise InvalidInput("there is nothing to finetune", problems=(problem,))


def training_batches(
    mix: Manifest,
    documents: Sequence[Sequence[Document]],
    *,
    recipe: Finetune,
    new_experts: frozenset[int],
    base_digest: str | None,
    blobs: BlobStore,
) -> DomainBatches:
    """Return the batches of a finetune, see `finetune`. Raises InvalidInput."""
    reader, length = TokenReader.of(mix, blobs), recipe.sequence_length
    return DomainBatches(
        [reader.windows(own, split="train", length=length) if own else None for own in documents],
        batch_size=recipe.batch_size,
        entropy=(ORDER, recipe.seed, *_lineage(mix, base_digest)),
        new=new_experts,
        new_share=recipe.new_share,
    )


def _with_choices(
    recipe: Finetune,
    checkpoints: Checkpoints,
    batches: DomainBatches,
    *,
    network: Network,
    world: World,
) -> Finetune:
    """Return the recipe with what the run chose before its first step, and keep it for a resume.

    Must be called before a checkpoint is loaded: the choice is made on the untrained mix.
    """
    if (chosen := checkpoints.choices.get(DOMAIN_LOSS_Q)) is not None:
        return recipe.model_copy(update={DOMAIN_LOSS_Q: chosen})
    recipe = choose_domain_loss(recipe, batches, network=network, world=world)
    checkpoints.choices = {DOMAIN_LOSS_Q: recipe.domain_loss_q}
    return recipe


def _lineage(mix: Manifest, base_digest: str | None) -> tuple[int, ...]:
    """Return what changes the order of documents in a mix that was made from another.

    The base and all experts, also where none joined: after a removal the finetune would otherwise
    see exactly the windows that the finetune of its base has seen.
    """
    if base_digest is None:
        return ()
    return (int(json_digest([base_digest, *mix.architecture.expert_names]), 16),)


def _trainable(mix: Manifest, blobs: BlobStore, recipe: Finetune) -> Network:
    """Return the network in `recipe.dtype`, with the parameters to train marked."""
    network = Network.from_manifest(mix, blobs, dtype=DTYPES[recipe.dtype])
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(trains(name, mix.architecture, recipe.train))
    if mix.architecture.has_projection:
        embeddings = tensors.read(blobs, mix.tensors[tensor_names.DOMAIN_EMBEDDINGS])
        network.model.domain_embeddings = embeddings.float()
    return network


def _to_float32(module: nn.Module, prefix: str, *, mix: Manifest, blobs: BlobStore) -> None:
    """Convert the trained parameters of a module to float32."""
    for name, parameter in module.named_parameters(prefix=prefix):
        if parameter.requires_grad and parameter.dtype != torch.float32:
            # Read again from the store: a float32 tensor has been rounded to bfloat16 here.
            parameter.data = tensors.read(blobs, mix.tensors[name]).float()


def _write_trained(
    mix: Manifest, trained: Iterable[tuple[str, Tensor]], blobs: BlobStore
) -> Manifest:
    """Store the trained tensors in their original dtypes and compute router rows from them."""
    entries = dict(mix.tensors)
    for name, tensor in trained:
        dtype = tensors.TORCH_DTYPES[entries[name].dtype]
        entries[name] = tensors.write(blobs, tensor.to(dtype))
    if entries == mix.tensors:
        return mix  # only the first process is given tensors
    if mix.architecture.has_projection:
        entries |= _fold_rows(entries, blobs)
    return replace(mix, tensors=entries)


def _fold_rows(entries: dict[str, TensorEntry], blobs: BlobStore) -> dict[str, TensorEntry]:
    """Compute and store the router rows of all blocks from the domain embeddings."""

    def read(name: str) -> Tensor:
        return tensors.read(blobs, entries[name]).float()

    rows: dict[str, TensorEntry] = {}
    for layer, embeddings_NM in enumerate(read(tensor_names.DOMAIN_EMBEDDINGS)):
        name = tensor_names.router_rows(layer)
        w1, w2 = (read(tensor_names.projection(layer, number)) for number in (0, 1))
        dtype = tensors.TORCH_DTYPES[entries[name].dtype]
        row_ND = project(embeddings_NM, w1, w2)
        rows[name] = tensors.write(blobs, row_ND.to(dtype))
    return rows
