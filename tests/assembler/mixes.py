"""Tiny mixtures of the tiny experts, with a random projection."""

import torch
from torch import Tensor

from assembler import upcycle
from assembler.network import project
from assembler.recipe import Recipe
from engine import tensors
from registry.architecture import Combine, projection_shapes
from registry.blobs import BlobStore
from registry.documents import Document
from registry.manifests import Manifest
from tests import tiny

NUM_EXPERTS = 3
EMBEDDING_SIZE = 16


def recipe(*, combine: Combine = "convex", experts_per_token: int = 1) -> Recipe:
    return Recipe(
        family="tiny",
        experts=tuple(f"expert-{i}@1" for i in range(1, NUM_EXPERTS + 1)),
        projection="tiny@1",
        combine=combine,
        experts_per_token=experts_per_token,
    )


def projection(blobs: BlobStore, *, scale: float = 1.0) -> Manifest:
    """Random W1 and W2 for both blocks."""
    generator = torch.Generator().manual_seed(7)
    shapes = projection_shapes(tiny.ARCHITECTURE.hidden_size, EMBEDDING_SIZE)
    entries = {
        f"model.layers.{layer}.mlp.gate.{name}": tensors.write(
            blobs, scale * torch.randn(shape, generator=generator) / shape[1] ** 0.5
        )
        for layer in range(tiny.ARCHITECTURE.num_hidden_layers)
        for name, shape in shapes.items()
    }
    return Manifest(config={}, tensors=entries)


def store_mix(
    blobs: BlobStore, *, combine: Combine = "convex", experts_per_token: int = 1
) -> Manifest:
    """Three tiny experts, assembled."""
    embeddings_NM = domain_embeddings()
    family = projection(blobs)
    prefixes = [
        f"model.layers.{i}.mlp.gate.projection." for i in range(tiny.ARCHITECTURE.num_hidden_layers)
    ]
    read = {name: tensors.read(blobs, entry) for name, entry in family.tensors.items()}
    return upcycle.assemble(
        recipe(combine=combine, experts_per_token=experts_per_token),
        seed=tiny.store_manifest(blobs),
        experts=[tiny.store_manifest(blobs, expert=i) for i in range(1, NUM_EXPERTS + 1)],
        projection=family,
        rows=[project(embeddings_NM, read[f"{p}0.weight"], read[f"{p}1.weight"]) for p in prefixes],
        domain_embeddings=embeddings_NM,
        blobs=blobs,
    )


def domain_embeddings() -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(NUM_EXPERTS, EMBEDDING_SIZE, generator=generator)


def expert_documents() -> list[list[Document]]:
    return [tiny.sample_documents(expert=i) for i in range(1, NUM_EXPERTS + 1)]
