"""A family projection on a tiny seed: it tells its own domains apart, and folds to rows."""

from dataclasses import replace

import pytest
import torch

from assembler.embedder import EMBEDDER, embedder_digest
from assembler.encoder import Encoder
from assembler.folding import fold
from assembler.hidden_states import capture
from assembler.projection import train
from assembler.recipe import ProjectionTraining
from registry.architecture import projection_shapes
from registry.blobs import LocalBlobs
from registry.documents import Document
from registry.errors import InvalidInput
from registry.manifests import Manifest
from tests import tiny

NUM_DOMAINS = 3
TRAINING = ProjectionTraining(
    documents_per_domain=6,
    sequence_length=32,
    states_per_document=8,
)


def public_documents() -> list[Document]:
    return [
        replace(document, domain=f"domain-{expert}")
        for expert in range(NUM_DOMAINS)
        for document in tiny.sample_documents(expert=expert)
    ]


def trained(blobs: LocalBlobs, seed: Manifest) -> Manifest:
    return train(
        seed,
        public_documents(),
        training=TRAINING,
        blobs=blobs,
        on_progress=lambda what, step, num_steps: None,
    )


def domain_vectors(*, split: str) -> torch.Tensor:
    encoder = Encoder()
    return torch.stack(
        [
            encoder.embed([d.text for d in tiny.sample_documents(expert=n) if d.split == split])
            .mean(0)
            for n in range(NUM_DOMAINS)
        ]
    )  # fmt: skip


def test_unread_documents_go_to_the_row_of_their_domain(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    routing = fold(trained(blobs, seed), domain_vectors(split="train").numpy(), blobs=blobs)
    correct = []
    for label in range(NUM_DOMAINS):
        own = tiny.sample_documents(expert=label)
        states_LCSD = capture(
            seed,
            [document.text for document in own if document.split == "held-out"],
            blobs=blobs,
            sequence_length=32,
            num_states=16,
            generator=torch.Generator().manual_seed(0),
            on_progress=lambda done: None,
        )
        for states_CSD, rows_ND in zip(states_LCSD, routing.rows, strict=True):
            correct.append((states_CSD.float() @ torch.from_numpy(rows_ND).T).argmax(-1) == label)
    assert torch.stack(correct).float().mean() > 2 / NUM_DOMAINS


def test_the_manifest_says_how_to_use_it_and_is_reproducible(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    projection = trained(blobs, seed)
    assert projection.config["embedder"] == EMBEDDER
    assert projection.config["embedder_digest"] == embedder_digest()
    shapes = {name: entry.shape for name, entry in projection.tensors.items()}
    assert shapes.pop("domain_center") == (384,)
    assert shapes == {
        f"model.layers.{layer}.mlp.gate.{name}": shape
        for layer in range(tiny.ARCHITECTURE.num_hidden_layers)
        for name, shape in projection_shapes(tiny.ARCHITECTURE.hidden_size, 385).items()
    }
    assert trained(blobs, seed).tensors == projection.tensors


def test_documents_must_name_two_domains(blobs: LocalBlobs) -> None:
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
