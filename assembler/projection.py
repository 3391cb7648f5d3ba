"""The family projection: from a domain embedding to router rows, learned once per family.

Nexus (arXiv 2408.15901, section 3) learns `e_i = P(d_i)` by gradient from the few domains of one
mixture, so nothing makes P right anywhere else. Here P is the ridge regression, block by block,
from frozen hidden states of the seed to the embedding of the document they come from: a token's
logit for an expert is then the similarity of the document it seems to stand in with the expert's
domain, for domains that were never seen as well.

The solution is linear, and is written exactly as the network's `W2 (swish(a) * b)`: domain
embeddings get a constant coordinate, which alone feeds `a`. Finetuning goes on from there.

Letters: L blocks, D hidden, M width of an encoder's vector, C texts, S hidden states kept of one,
B hidden states and N rows in an episode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.embedder import EMBEDDER, embedder_digest
from assembler.encoder import Encoder
from assembler.folding import SWISH_IS_ONE, prefix
from assembler.hidden_states import capture
from assembler.recipe import ProjectionTraining
from engine import tensors
from registry.blobs import BlobStore
from registry.documents import Document, group_by_domain
from registry.manifests import Manifest

# (what is being done, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]

# Episodes that the temperatures are chosen on: groups of neighbouring documents act as domains.
NUM_EPISODES = 40
EPISODE_DOMAINS = 3
EPISODE_DOCUMENTS = 8
EPISODE_STATES = 64


def train(
    seed: Manifest,
    documents: Sequence[Document],
    *,
    training: ProjectionTraining,
    blobs: BlobStore,
    on_progress: OnProgress,
) -> Manifest:
    """Learn W1 and W2 of every block from public documents, each of which names its domain.

    Raises InvalidInput with fewer than two domains, or without documents to train on.
    """
    by_domain = group_by_domain(documents)
    domains = [own[: training.documents_per_domain] for own in by_domain.values()]
    texts = [d.text[: training.characters_per_document] for own in domains for d in own]
    labels_C = torch.tensor([i for i, own in enumerate(domains) for _ in own])
    generator = torch.Generator().manual_seed(training.seed)
    on_progress("embedding documents", 0, len(texts))
    vectors_CM = Encoder().embed(texts)
    states_LCSD = capture(
        seed,
        texts,
        blobs=blobs,
        sequence_length=training.sequence_length,
        num_states=training.states_per_document,
        generator=generator,
        on_progress=lambda done: on_progress("reading documents", done, len(texts)),
    )
    # Every domain weighs the same, whatever the number of its documents.
    means_NM = torch.stack([vectors_CM[labels_C == i].mean(0) for i in range(len(domains))])
    center_M = means_NM.mean(0)
    episodes = _Episodes.draw(vectors_CM - center_M, training.states_per_document, generator)
    entries = {"domain_center": tensors.write(blobs, center_M)}
    dtype = tensors.TORCH_DTYPES[seed.tensors["model.norm.weight"].dtype]
    accuracies: list[float] = []
    for layer, states_CSD in enumerate(states_LCSD):
        map_DM = _ridge(states_CSD.float(), vectors_CM - center_M, ridge=training.ridge)
        temperature, accuracy = episodes.temperature(states_CSD.float(), map_DM)
        w1, w2 = _as_projection(training.sharpness * temperature * map_DM)
        entries[f"{prefix(layer)}0.weight"] = tensors.write(blobs, w1.to(dtype))
        entries[f"{prefix(layer)}1.weight"] = tensors.write(blobs, w2.to(dtype))
        accuracies.append(accuracy)
        on_progress("solving blocks", layer + 1, len(states_LCSD))
    config = {
        "embedder": EMBEDDER,
        "embedder_digest": embedder_digest(),
        "seed_digest": seed.digest,
        "num_hidden_layers": len(states_LCSD),
        "training": training.model_dump(mode="json"),
        "metrics": {"episode_accuracy": sum(accuracies) / len(accuracies)},
    }
    return Manifest(config=config, tensors=entries)


@dataclass(frozen=True)
class _Episodes:
    """Small routing tasks made of documents alone, each with its rows' embeddings [N, M].

    `chunks`, `positions` and `labels` [episodes, B] say which hidden states ask for a row, and
    which row is right.
    """

    embeddings: Tensor
    chunks: Tensor
    positions: Tensor
    labels: Tensor

    @classmethod
    def draw(cls, vectors_CM: Tensor, num_states: int, generator: torch.Generator) -> "_Episodes":
        """Each pseudo-domain is a random document with its nearest neighbours."""
        num_texts = len(vectors_CM)
        unit_CM = F.normalize(vectors_CM, dim=-1)
        nearest_CC = (unit_CM @ unit_CM.T).argsort(descending=True)
        size, num_rows = min(EPISODE_DOCUMENTS, num_texts), min(EPISODE_DOMAINS, num_texts)
        shape = (NUM_EPISODES, EPISODE_STATES)
        anchors = torch.stack(
            [torch.randperm(num_texts, generator=generator)[:num_rows] for _ in range(NUM_EPISODES)]
        )
        groups = nearest_CC[anchors, :size]
        labels = torch.randint(num_rows, shape, generator=generator)
        members = torch.randint(size, shape, generator=generator)
        return cls(
            embeddings=F.normalize(vectors_CM[groups].mean(2), dim=-1),
            chunks=groups[torch.arange(NUM_EPISODES)[:, None], labels, members],
            positions=torch.randint(num_states, shape, generator=generator),
            labels=labels,
        )

    def temperature(self, states_CSD: Tensor, map_DM: Tensor) -> tuple[float, float]:
        """The factor on the logits with the smallest cross-entropy, and the share that is right."""
        states_EBD = states_CSD[self.chunks, self.positions]
        logits_EBN = states_EBD @ map_DM @ self.embeddings.mT
        factors = torch.logspace(-2, 4, 61).tolist()
        logits, labels = logits_EBN.flatten(0, 1), self.labels.flatten()
        losses = [F.cross_entropy(factor * logits, labels).item() for factor in factors]
        accuracy = (logits.argmax(-1) == labels).float().mean().item()
        return factors[losses.index(min(losses))], accuracy


def _ridge(states_CSD: Tensor, vectors_CM: Tensor, *, ridge: float) -> Tensor:
    """The linear map [D, M] from a hidden state to the vector of its document.

    Rows must not meet the mean hidden state: it is in every token, and its product with the row of
    an unseen domain would be an arbitrary bias, so the map is kept orthogonal to it.
    """
    mean_D = F.normalize(states_CSD.mean((0, 1)), dim=0)
    states_CSD = states_CSD - (states_CSD @ mean_D)[..., None] * mean_D
    flat = states_CSD.flatten(0, 1)
    covariance_DD = flat.T @ flat / len(flat)
    covariance_DD += ridge * covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
    products_DM = torch.einsum("csd,cm->dm", states_CSD, vectors_CM) / len(flat)
    map_DM: Tensor = torch.linalg.solve(covariance_DD, products_DM)
    return map_DM - mean_D[:, None] * (mean_D @ map_DM)


def _as_projection(map_DM: Tensor) -> tuple[Tensor, Tensor]:
    """W1 [2D, M + 1] and W2 [D, D] with `W2 (swish(a) * b) = map d` for a constant coordinate 1."""
    hidden, width = map_DM.shape
    left_DR, values_R, right_RM = torch.linalg.svd(map_DM, full_matrices=False)
    rank = len(values_R)
    w1 = torch.zeros(2 * hidden, width + 1)
    w2 = torch.zeros(hidden, hidden)
    w1[:rank, -1] = SWISH_IS_ONE
    # Both sides get the root of the values, so that neither is far larger than the other.
    w1[hidden : hidden + rank, :-1] = values_R.sqrt()[:, None] * right_RM
    w2[:, :rank] = left_DR * values_R.sqrt()
    return w1, w2
