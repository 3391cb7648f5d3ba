"""Tiny mixes of the tiny experts, with a random projection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assembler.assembly import extend, upcycle
from assembler.assembly.extend import Base
from assembler.assembly.regression import Member
from assembler.recipes import presets
from assembler.recipes.mix_architecture import mixture_of
from assembler.recipes.recipe import Finetune, Preset, Recipe
from assembler.routing import router_init
from assembler.routing.embedder import states_shape
from assembler.routing.router_init import Domains
from assembler.routing.router_rows import STATES_CENTER, VECTORS_CENTER
from assembler.training.finetune import CHECKPOINT_STEPS, finetune
from assembler.training.optimizer import OnStep
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.architecture import projection_shapes
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats
from tests import tiny

NUM_EXPERTS = 3
VECTOR_SIZE = 15


def recipe(
    *, preset: Preset = "nexus", experts: Sequence[int] = (1, 2, 3), **changes: Any
) -> Recipe:
    return Recipe(
        **presets.assembly(preset).model_dump() | changes,
        family="tiny",
        experts=tuple(f"expert-{i}@1" for i in experts),
        projection="tiny@1",
        finetune=presets.finetune(preset, num_experts=len(experts)),
    )


def projection(blobs: BlobStore) -> Manifest:
    """Store random W1 and W2 for both blocks, and both centers."""
    generator = torch.Generator().manual_seed(7)
    num_layers, hidden = tiny.ARCHITECTURE.num_hidden_layers, tiny.ARCHITECTURE.hidden_size
    shapes = projection_shapes(hidden, hidden + 1)
    entries = {
        f"model.layers.{layer}.mlp.gate.{name}": tensors.write(
            # Embeddings are scaled so that W1's output has length 1; W2's input is as wide as the
            # network.
            blobs,
            torch.randn(shape, generator=generator) / (1 if ".0." in name else shape[1] ** 0.5),
        )
        for layer in range(num_layers)
        for name, shape in shapes.items()
    }
    for name, shape in {
        STATES_CENTER: (num_layers, hidden),
        VECTORS_CENTER: (VECTOR_SIZE,),
    }.items():
        entries[name] = tensors.write(blobs, torch.randn(shape, generator=generator))
    config = {"num_hidden_layers": num_layers, "training": {"own_weight": 0.05}}
    return Manifest(config=config, tensors=entries)


def store_mix(
    blobs: BlobStore,
    *,
    preset: Preset = "nexus",
    experts: Sequence[int] = (1, 2, 3),
    **changes: Any,
) -> Manifest:
    """Assemble a mix of tiny experts; `changes` replace fields of the preset."""
    return assemble(recipe(preset=preset, experts=experts, **changes), blobs)


def assemble(recipe: Recipe, blobs: BlobStore, *, base: Base | None = None) -> Manifest:
    """Assemble the recipe's mix from tiny experts, as stored or as `base` has them."""
    seed = tiny.store_manifest(blobs)
    mix = mixture_of(recipe, tiny.ARCHITECTURE, vector_size=VECTOR_SIZE)
    numbers = [int(name.removeprefix("expert-")) for name in recipe.domains]
    base_experts = {} if base is None else base.experts
    experts = [
        base_experts.get(ref) or Member(checkpoint=tiny.store_manifest(blobs, expert=number))
        for ref, number in zip(recipe.experts, numbers, strict=True)
    ]
    routers = router_init.initial_routers(
        recipe,
        mix,
        seed=seed,
        domains=Domains(
            states=np.stack([states(number) for number in numbers]),
            vectors=np.stack([vector(number) for number in numbers]),
            documents=[tiny.sample_documents(expert=number) for number in numbers],
            experts=[expert.checkpoint for expert in experts],
        ),
        family=projection(blobs),
        learned=None if base is None else extend.learned_routers(base, recipe),
        blobs=blobs,
    )
    if base is None:
        return upcycle.upcycle(
            recipe, mix, seed=seed, experts=experts, routers=routers, blobs=blobs
        )
    return extend.extend(
        recipe, mix, base=base, seed=seed, experts=experts, routers=routers, blobs=blobs
    )


def as_base(mix: Manifest, blobs: BlobStore, *, experts: Sequence[int] = (1, 2, 3)) -> Base:
    dense = {f"expert-{i}@1": tiny.store_manifest(blobs, expert=i) for i in experts}
    members = {ref: Member(checkpoint=checkpoint) for ref, checkpoint in dense.items()}
    return Base(mix=mix, experts=members)


def finetuned(
    mix: Manifest,
    blobs: BlobStore,
    folder: Path,
    *,
    recipe: Finetune,
    on_progress: OnStep = lambda _: None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
) -> Manifest:
    """Finetune a mix on its experts' documents; checkpoints are written to `folder`."""
    return finetune(
        mix,
        recipe=recipe,
        documents=expert_documents(),
        blobs=blobs,
        checkpoint_path=folder,
        on_progress=on_progress,
        checkpoint_steps=checkpoint_steps,
    )


def vector(expert: int) -> Floats:
    """Return an expert's mean document vector, as an encoder would give it."""
    random = np.random.default_rng(100 + expert)
    return random.standard_normal(VECTOR_SIZE, np.float32)


def states(expert: int) -> Floats:
    """Return the router inputs [L, R, D] of an expert."""
    shape = states_shape(tiny.ARCHITECTURE.num_hidden_layers, tiny.ARCHITECTURE.hidden_size)
    return np.random.default_rng(200 + expert).standard_normal(shape, np.float32)


def expert_documents(experts: Sequence[int] = (1, 2, 3)) -> list[list[Document]]:
    return [tiny.sample_documents(expert=i) for i in experts]
