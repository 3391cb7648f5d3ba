"""The short training of an assembled mix on a mixture of its experts' documents.

Loss = next token + load balance + the router's cross-entropy towards each sequence's own expert.
The router is trained through the projection, from which the rows are folded again at the end. One
process and a torchrun of many run the same code; many shard the network (FSDP2).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from assembler.checkpoints import Checkpoints
from assembler.data import Batch, Mixture, Reader
from assembler.network import Network, project
from assembler.recipe import Finetune, Trained
from assembler.sharding import joined, spread
from assembler.training import Clock, OnProgress, learning_rate, set_rate
from engine import tensors
from registry.blobs import BlobStore
from registry.documents import Document
from registry.errors import StepFailed
from registry.manifests import Manifest, TensorEntry

CHECKPOINT_STEPS = 10
MAX_GRADIENT_NORM = 1.0

# Which parameters a recipe's `train` means; the router always learns with what it routes to.
_PARTS: dict[Trained, tuple[str, ...]] = {
    "router": (".mlp.gate.",),
    "attention": (".mlp.gate.", ".self_attn."),
    "shared": (".mlp.gate.", ".mlp.shared_expert."),
    "experts": (".mlp.gate.", ".mlp.experts."),
    "all": ("",),
}


def finetune(
    mix: Manifest,
    *,
    recipe: Finetune,
    documents: Sequence[Sequence[Document]],
    blobs: BlobStore,
    checkpoint_path: Path,
    on_progress: OnProgress,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> Manifest:
    """Train `recipe.train` of a mix for `recipe.tokens`; returns the manifest of the result.

    `documents` are the experts', in the order of the mix's `expert_names`; those for training are
    used. A run that died goes on from `checkpoint_path`, which the caller removes once the result
    is on record. Only tensors that changed are written. Raises InvalidInput when an expert has too
    little text, StepFailed when the loss is not finite.
    """
    if recipe.num_steps == 0:
        return mix
    reader = Reader.of(mix, blobs)
    windows = [
        reader.windows(own, split="train", length=recipe.sequence_length) for own in documents
    ]
    batches = Mixture(windows, batch_size=recipe.batch_size, seed=recipe.seed)
    with joined() as world:
        network = spread(trainable(mix, blobs, train=recipe.train), world)
        optimizer = torch.optim.AdamW(
            [p for p in network.parameters() if p.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=0.0,
        )
        checkpoints = Checkpoints(
            checkpoint_path, network=network, optimizer=optimizer, world=world
        )
        first_step = checkpoints.resume()
        clock = Clock(recipe, first_step)
        for step in range(first_step, recipe.num_steps):
            batch = batches.batch(step).part(world.rank, of=world.size, device=world.device)
            set_rate(optimizer, learning_rate(recipe, step))
            loss = train_on(batch, network=network, optimizer=optimizer, recipe=recipe)
            if not math.isfinite(loss):
                raise StepFailed(_not_finite(loss, step, batch, mix))
            if world.rank == 0:
                on_progress(clock.progress(step + 1, loss))
            if (step + 1) % checkpoint_steps == 0:
                checkpoints.save(step + 1)
        state = _trained(network)
        return _rewritten(mix, state, blobs) if world.rank == 0 else mix


def trainable(mix: Manifest, blobs: BlobStore, *, train: Trained) -> Network:
    """The network with what trains in float32 and all else frozen in bfloat16."""
    network = Network.from_manifest(mix, blobs, dtype=torch.bfloat16)
    for name, parameter in network.named_parameters():
        if _trains(name, mix, train):
            # Read again: rounding to bfloat16 would change what is stored in float32.
            parameter.data = tensors.read(blobs, mix.tensors[name]).float()
            parameter.requires_grad_()
    if mix.architecture.router == "nexus":
        embeddings = tensors.read(blobs, mix.tensors["model.domain_embeddings"])
        network.model.domain_embeddings = embeddings.float()
    return network


def _trains(name: str, mix: Manifest, train: Trained) -> bool:
    # Folded rows follow the projection and are not parameters of their own.
    is_folded = name.endswith(".mlp.gate.weight") and mix.architecture.router == "nexus"
    return not is_folded and any(part in name for part in _PARTS[train])


def train_on(
    batch: Batch, *, network: Network, optimizer: torch.optim.Optimizer, recipe: Finetune
) -> float:
    """One step on one batch; returns the loss before it. Does nothing when it is not finite."""
    with torch.autocast(network.device.type, torch.bfloat16):
        loss = total_loss(batch, network=network, recipe=recipe)
    value = loss.item()
    if math.isfinite(value):
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return value


def total_loss(batch: Batch, *, network: Network, recipe: Finetune) -> Tensor:
    """Next-token cross-entropy, plus the weighted load balance and domain cross-entropy."""
    router_logits: list[Tensor] = []
    logits_BTV = network(
        batch.tokens,
        router_logits=router_logits,
        project_rows=network.architecture.router == "nexus",
    )
    routing_LTN = torch.stack(router_logits).float()
    labels_T = batch.labels.repeat_interleave(batch.tokens.shape[1])
    loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), batch.tokens[:, 1:].flatten())
    loss = loss + recipe.load_balance_weight * load_balance(routing_LTN)
    return loss + recipe.domain_weight * domain_loss(routing_LTN, labels_T)


def load_balance(routing_LTN: Tensor) -> Tensor:
    """`N sum_i f_i P_i`, mean over blocks: 1 when even, N when one expert takes all.

    f_i is the share of tokens that choose expert i first, P_i its mean probability (Switch
    Transformer, arXiv 2101.03961, section 2.2).
    """
    num_experts = routing_LTN.shape[-1]
    p_LTN = routing_LTN.softmax(-1)
    chosen_LTN = F.one_hot(p_LTN.argmax(-1), num_experts).float()
    return num_experts * (chosen_LTN.mean(1) * p_LTN.mean(1)).sum(-1).mean()


def domain_loss(routing_LTN: Tensor, labels_T: Tensor) -> Tensor:
    """Cross-entropy of every block's routing with the expert that each token's text belongs to."""
    return F.cross_entropy(routing_LTN.flatten(0, 1), labels_T.repeat(len(routing_LTN)))


def _not_finite(loss: float, step: int, batch: Batch, mix: Manifest) -> str:
    names = mix.architecture.expert_names
    counts = batch.labels.bincount(minlength=len(names)).tolist()
    shares = ", ".join(f"{n} of {name}" for name, n in zip(names, counts, strict=True))
    return f"the loss is {loss} in step {step + 1}, on sequences: {shares}"


def _trained(network: Network) -> dict[str, Tensor]:
    """What was trained, whole and on the CPU of the first process; every process must ask."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    state = get_model_state_dict(network, options=options)
    return {name: cast(Tensor, value) for name, value in state.items() if name in names}


def _rewritten(mix: Manifest, state: dict[str, Tensor], blobs: BlobStore) -> Manifest:
    """The mix with `state` in it, in the dtypes it had, and rows folded from just that."""
    entries = dict(mix.tensors)
    for name, tensor in state.items():
        dtype = tensors.TORCH_DTYPES[entries[name].dtype]
        entries[name] = tensors.write(blobs, tensor.to(dtype))
    if mix.architecture.router == "nexus":
        entries |= _folded(entries, blobs)
    return replace(mix, tensors=entries)


def _folded(entries: dict[str, TensorEntry], blobs: BlobStore) -> dict[str, TensorEntry]:
    def read(name: str) -> Tensor:
        return tensors.read(blobs, entries[name]).float()

    embeddings_NM = read("model.domain_embeddings")
    rows: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        if name.endswith(".mlp.gate.weight"):
            prefix = name.removesuffix("weight") + "projection."
            row_ND = project(embeddings_NM, read(f"{prefix}0.weight"), read(f"{prefix}1.weight"))
            rows[name] = tensors.write(blobs, row_ND.to(tensors.TORCH_DTYPES[entry.dtype]))
    return rows
