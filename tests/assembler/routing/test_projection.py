"""A family projection on a tiny seed: it distinguishes domains and gives router rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from assembler.recipes.recipe import ProjectionTraining
from assembler.routing.embedder import embedder_digest, states_embedder_digest
from assembler.routing.projection import train
from assembler.routing.router_inputs import RouterInputs
from assembler.routing.router_rows import fold_rows
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from registry.checkpoints.architecture import projection_shapes
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput
from tests import tiny

NUM_DOMAINS = 3
NUM_TOKENS = 1024
TRAINING = ProjectionTraining(tokens_per_domain=NUM_TOKENS)
GATE = "model.layers.1.mlp.gate.projection."


def public_documents() -> list[Document]:
    return [
        replace(document, domain=f"domain-{expert}")
        for expert in range(NUM_DOMAINS)
        for document in tiny.sample_documents(expert=expert)
    ]


def trained(
    blobs: LocalBlobs, seed: Manifest, *, training: ProjectionTraining = TRAINING
) -> Manifest:
    return train(
        seed,
        public_documents(),
        training=training,
        blobs=blobs,
        on_progress=lambda what, step, num_steps: None,
    )


def experts(blobs: LocalBlobs, seed: Manifest) -> torch.Tensor:
    """Return the router inputs [n, L, R, D] of domains that the projection has not seen."""
    inputs = RouterInputs(seed, blobs)
    documents_by_domain = [
        tiny.sample_documents(expert=unseen(number)) for number in range(NUM_DOMAINS)
    ]
    moments = [
        inputs.moments(documents, num_tokens=NUM_TOKENS) for documents in documents_by_domain
    ]
    return torch.stack([domain_moments.embedding() for domain_moments in moments])


def unseen(number: int) -> int:
    return NUM_DOMAINS + number


def read(blobs: LocalBlobs, seed: Manifest, expert: int, *, layer: int) -> torch.Tensor:
    """Return the router inputs [T, D] of a domain's held-out text."""
    held_out = [
        replace(document, split="train")
        for document in tiny.sample_documents(expert=expert)
        if document.split == "held-out"
    ]
    batches = RouterInputs(seed, blobs).batches(held_out, num_tokens=NUM_TOKENS)
    return torch.cat([states[layer] for states in batches])


def test_held_out_text_of_unseen_domains_is_routed_to_its_row(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    routing = fold_rows(trained(blobs, seed), experts(blobs, seed).numpy(), blobs=blobs)
    shares = []
    for number in range(NUM_DOMAINS):
        for layer, rows_ND in enumerate(routing.rows):
            states_TD = read(blobs, seed, unseen(number), layer=layer)
            chosen_T = (states_TD @ torch.from_numpy(rows_ND).T).argmax(-1)
            shares.append((chosen_T == number).float().mean())
    assert torch.stack(shares).mean() > 2 / NUM_DOMAINS


def test_logits_have_the_requested_spread_and_rows_are_orthogonal_to_the_center(
    blobs: LocalBlobs,
) -> None:
    """The spread is that within the domains read for the projection."""
    seed = tiny.store_manifest(blobs)
    training = TRAINING.model_copy(update={"logit_spread": 2.0})
    projection = trained(blobs, seed, training=training)
    states_NLD = experts(blobs, seed).numpy()
    rows_ND = torch.from_numpy(fold_rows(projection, states_NLD, blobs=blobs).rows[1])
    center_D = tensors.read(blobs, projection.tensors["states_center"])[1]
    assert (rows_ND @ center_D).abs().max() < 1e-3 * rows_ND.norm() * center_D.norm()
    inputs = RouterInputs(seed, blobs)
    variances = []
    for expert in range(NUM_DOMAINS):
        batches = inputs.batches(tiny.sample_documents(expert=expert), num_tokens=NUM_TOKENS)
        states_TD = torch.cat([states[1] for states in batches])
        variances.append((states_TD @ rows_ND.T).var(0))
    spread_N = torch.stack(variances).mean(0).sqrt()
    torch.testing.assert_close(spread_N, torch.full((NUM_DOMAINS,), 2.0), rtol=0.05, atol=0)


def test_rows_do_not_depend_on_the_distance_from_the_center(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    projection = trained(blobs, seed)
    center_LD = tensors.read(blobs, projection.tensors["states_center"]).numpy()
    near = experts(blobs, seed).numpy()
    far = near.copy()
    far[:, :, 0] = center_LD + 3 * (near[:, :, 0] - center_LD)
    one, other = (fold_rows(projection, states, blobs=blobs).rows[0] for states in (near, far))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_the_manifest_names_its_embedders_and_is_reproducible(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    projection = trained(blobs, seed)
    assert projection.config["embedder_digest"] == embedder_digest()
    assert projection.config["states_embedder_digest"] == states_embedder_digest(seed.digest)
    shapes = {name: entry.shape for name, entry in projection.tensors.items()}
    hidden = tiny.ARCHITECTURE.hidden_size
    assert shapes.pop("vectors_center") == (384,)
    assert shapes.pop("states_center") == (tiny.ARCHITECTURE.num_hidden_layers, hidden)
    assert shapes == {
        f"model.layers.{layer}.mlp.gate.{name}": shape
        for layer in range(tiny.ARCHITECTURE.num_hidden_layers)
        for name, shape in projection_shapes(hidden, hidden + 1).items()
    }
    assert trained(blobs, seed).tensors == projection.tensors


def test_at_least_two_named_domains_are_required(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    nameless = tiny.sample_documents()
    one = [replace(document, domain="only") for document in nameless]
    for documents, pattern in ((nameless, "named domains"), (one, "tells domains apart")):
        with pytest.raises(InvalidInput, match=pattern):
            train(
                seed,
                documents,
                training=TRAINING,
                blobs=blobs,
                on_progress=lambda what, step, num_steps: None,
            )
