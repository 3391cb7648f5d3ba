"""The family projection: from a domain embedding to router rows, learned once per family.

Nexus (arXiv 2408.15901, section 3) learns `e_i = P(d_i)` from the few domains of one mixture, so
nothing makes P right anywhere else. Here P is trained on frozen hidden states of the seed over many
pseudo-domains, small groups of neighbouring documents, so that it places a domain it never saw.

Letters: L blocks, D hidden, M domain-embedding width, C chunks of text, S hidden states kept of a
chunk, B hidden states in a step, N rows in a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.embedder import EMBEDDER, embedder_digest
from assembler.encoder import Encoder
from assembler.hidden_states import capture
from assembler.network import project
from assembler.recipe import ProjectionTraining
from engine import tensors
from registry.blobs import BlobStore
from registry.documents import Document, group_by_domain
from registry.manifests import Manifest

# (what is being done, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Routing:
    """What a mix takes from a projection: one [N, D] of rows per block, and the [N, M] they are
    made from, as the router sees them."""

    rows: list[Tensor]
    domain_embeddings: Tensor


def fold(projection: Manifest, vectors: Tensor, *, blobs: BlobStore) -> Routing:
    """Router rows of experts with domain embeddings `vectors` [N, M], in their order."""
    center_M = tensors.read(blobs, projection.tensors["domain_center"])
    embeddings_NM = projection.config["scale"] * (vectors.float() - center_M)
    rows = [
        project(
            embeddings_NM,
            tensors.read(blobs, projection.tensors[f"{_prefix(layer)}0.weight"]).float(),
            tensors.read(blobs, projection.tensors[f"{_prefix(layer)}1.weight"]).float(),
        )
        for layer in range(projection.config["num_hidden_layers"])
    ]
    return Routing(rows, embeddings_NM)


def train(
    seed: Manifest,
    documents: Sequence[Document],
    *,
    training: ProjectionTraining,
    blobs: BlobStore,
    on_progress: OnProgress,
) -> Manifest:
    """Train W1 and W2 of every block on public documents, each of which names its domain.

    Raises InvalidInput with fewer than two domains, or without documents to train on.
    """
    by_domain = group_by_domain(documents)
    domains = [own[: training.documents_per_domain] for own in by_domain.values()]
    texts = [d.text[: training.characters_per_document] for own in domains for d in own]
    labels_C = torch.tensor([i for i, own in enumerate(domains) for _ in own])
    generator = torch.Generator().manual_seed(training.seed)
    on_progress("embedding documents", 0, len(texts))
    embeddings_CM = Encoder().embed(texts)
    states_LCSD = capture(
        seed,
        texts,
        blobs=blobs,
        sequence_length=training.sequence_length,
        num_states=training.states_per_document,
        generator=generator,
        on_progress=lambda done: on_progress("reading documents", done, len(texts)),
    )
    means_NM = torch.stack([embeddings_CM[labels_C == i].mean(0) for i in range(len(domains))])
    center_M = means_NM.mean(0)
    sampler = _Sampler(
        states_LCSD,
        labels_C,
        points=training.scale * (means_NM - center_M),
        embeddings=training.scale * (embeddings_CM - center_M),
        num_states=training.states_per_step,
        generator=generator,
    )
    w1, w2, metrics = _fit(sampler, training, generator, on_progress)
    return _manifest(seed, training, blobs, center_M=center_M, w1=w1, w2=w2, metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Which of the rows made from `embeddings` [N, M] do `states` [L, B, D] belong to?"""

    embeddings: Tensor
    states: Tensor
    labels: Tensor


class _Sampler:
    """Draws training tasks: the true domains (points), and episodes of pseudo-domains."""

    def __init__(
        self,
        states_LCSD: Tensor,
        labels_C: Tensor,
        *,
        points: Tensor,
        embeddings: Tensor,
        num_states: int,
        generator: torch.Generator,
    ) -> None:
        self.states_LCSD, self._labels_C = states_LCSD, labels_C
        self._points_NM, self._embeddings_CM = points, embeddings
        self._num_states, self._generator = num_states, generator
        similarities_CC = F.normalize(embeddings, dim=-1) @ F.normalize(embeddings, dim=-1).T
        self._neighbours_CC = similarities_CC.argsort(descending=True)

    def points(self) -> _Task:
        chunks_B = self._integers(len(self._labels_C), self._num_states)
        return _Task(
            embeddings=self._points_NM,
            states=self._states(chunks_B),
            labels=self._labels_C[chunks_B],
        )

    def episode(self) -> _Task:
        """4 to 16 pseudo-domains, each an anchor document and up to seven of its neighbours."""
        num_chunks = len(self._labels_C)
        num_rows = min(4 + int(self._integers(13, 1)), num_chunks)
        size = min(1 << int(self._integers(4, 1)), num_chunks)
        anchors_N = torch.randperm(num_chunks, generator=self._generator)[:num_rows]
        groups_NG = self._neighbours_CC[anchors_N, :size]
        labels_B = self._integers(num_rows, self._num_states)
        members_B = self._integers(size, self._num_states)
        return _Task(
            embeddings=self._embeddings_CM[groups_NG].mean(1),
            states=self._states(groups_NG[labels_B, members_B]),
            labels=labels_B,
        )

    def _states(self, chunks_B: Tensor) -> Tensor:
        positions_B = self._integers(self.states_LCSD.shape[2], len(chunks_B))
        return self.states_LCSD[:, chunks_B, positions_B].float()

    def _integers(self, below: int, count: int) -> Tensor:
        return torch.randint(below, (count,), generator=self._generator)


def _fit(
    sampler: _Sampler,
    training: ProjectionTraining,
    generator: torch.Generator,
    on_progress: OnProgress,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """W1 [L, 2D, M] and W2 [L, D, D], all blocks at once."""
    num_layers, _, _, hidden = sampler.states_LCSD.shape
    width = sampler.points().embeddings.shape[1]
    w1 = _uniform((num_layers, 2 * hidden, width), generator)
    w2 = _uniform((num_layers, hidden, hidden), generator)
    optimizer = torch.optim.AdamW([w1, w2], lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.num_steps)
    metrics: dict[str, float] = {}
    for step in range(training.num_steps):
        points, episode = sampler.points(), sampler.episode()
        point_loss, point_accuracy = _loss(points, w1, w2)
        episode_loss, episode_accuracy = _loss(episode, w1, w2)
        # Summed over blocks, not averaged: every block learns as if it were alone.
        loss = num_layers * (point_loss + training.episode_weight * episode_loss)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        metrics = {"point_accuracy": point_accuracy, "episode_accuracy": episode_accuracy}
        on_progress("training", step + 1, training.num_steps)
    return w1.detach(), w2.detach(), metrics


def _loss(task: _Task, w1: Tensor, w2: Tensor) -> tuple[Tensor, float]:
    rows_LND = project(task.embeddings, w1, w2)
    logits_LBN = task.states @ rows_LND.transpose(1, 2)
    labels_LB = task.labels.expand(len(logits_LBN), -1)
    accuracy = (logits_LBN.argmax(-1) == labels_LB).float().mean().item()
    return F.cross_entropy(logits_LBN.flatten(0, 1), labels_LB.flatten()), accuracy


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    bound = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator).requires_grad_()


def _manifest(
    seed: Manifest,
    training: ProjectionTraining,
    blobs: BlobStore,
    *,
    center_M: Tensor,
    w1: Tensor,
    w2: Tensor,
    metrics: dict[str, float],
) -> Manifest:
    dtype = tensors.TORCH_DTYPES[seed.tensors["model.norm.weight"].dtype]
    entries = {"domain_center": tensors.write(blobs, center_M)}
    for layer in range(len(w1)):
        entries[f"{_prefix(layer)}0.weight"] = tensors.write(blobs, w1[layer].to(dtype))
        entries[f"{_prefix(layer)}1.weight"] = tensors.write(blobs, w2[layer].to(dtype))
    config = {
        "embedder": EMBEDDER,
        "embedder_digest": embedder_digest(),
        "seed_digest": seed.digest,
        "num_hidden_layers": len(w1),
        "scale": training.scale,
        "training": training.model_dump(mode="json"),
        "metrics": metrics,
    }
    return Manifest(config=config, tensors=entries)


def _prefix(layer: int) -> str:
    return f"model.layers.{layer}.mlp.gate.projection."
