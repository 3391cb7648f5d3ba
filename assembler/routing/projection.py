"""Compute the family projection, from domain embeddings to router rows, once per family.

Nexus (arXiv 2408.15901, section 3) learns `e_i = P(d_i)` by gradient from the few domains of one
mixture, so P need not hold for any other domain. Here d_i is, block by block, the mean router input
of the expert on its own documents, and P is Fisher's linear discriminant: `S^-1 (d_i - c)`. S is
the covariance of router inputs within a domain and c their center, both measured on public text
read by the seed. The discriminant weighs every direction by how little it varies within a domain.
Text of any domains shows that, so P holds for unseen domains too.

The solution is linear and is written exactly as the network's `W2 (swish(a) * b)`: domain
embeddings get a constant coordinate, which alone feeds `a`. A finetune continues from there.

Letters: L blocks, D hidden, N domains, T tokens of a batch, E width of an encoder's vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.progress import OnCount
from assembler.recipes.recipe import ProjectionTraining
from assembler.routing.embedder import EMBEDDER, embedder_digest, states_embedder_digest
from assembler.routing.router_inputs import RouterInputs
from assembler.routing.router_rows import STATES_CENTER, SWISH_IS_ONE, VECTORS_CENTER
from assembler.routing.text_encoder import Encoder
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document, group_by_domain, sample_evenly
from registry.checkpoints import tensor_names
from registry.checkpoints.manifests import Manifest


@dataclass(frozen=True, kw_only=True)
class PublicStatistics:
    """Statistics of public text as the seed reads it.

    - `states_center` [L, D]: the center of router inputs; every domain weighs the same, whatever
      the amount of its text.
    - `within` [L, D, D]: the covariance of router inputs within a domain.
    - `vectors_center` [E]: the center of an encoder's vectors.
    """

    seed: Manifest
    states_center: Tensor
    within: Tensor
    vectors_center: Tensor


def train(
    seed: Manifest,
    documents: Sequence[Document],
    *,
    training: ProjectionTraining,
    blobs: BlobStore,
    on_progress: OnCount,
) -> Manifest:
    """Compute W1 and W2 of every block from public documents, each with the name of its domain.

    Raises InvalidInput with fewer than two domains, or without documents to train on.
    """
    domains = list(group_by_domain(documents).values())
    public = measure_public_text(
        seed, domains, training=training, blobs=blobs, on_progress=on_progress
    )
    return solve(public, training=training, blobs=blobs)


def measure_public_text(
    seed: Manifest,
    domains: Sequence[Sequence[Document]],
    *,
    training: ProjectionTraining,
    blobs: BlobStore,
    on_progress: OnCount,
) -> PublicStatistics:
    """Read one domain after the other and return the statistics; only sums are held in memory."""
    inputs = RouterInputs(seed, blobs)
    means: list[Tensor] = []
    within_LDD = torch.zeros(())
    for number, domain_documents in enumerate(domains):
        on_progress("reading documents", number, len(domains))
        moments = inputs.moments(domain_documents, num_tokens=training.tokens_per_domain)
        means.append(moments.mean)
        within_LDD = within_LDD + moments.covariance / len(domains)
    on_progress("reading documents", len(domains), len(domains))
    return PublicStatistics(
        seed=seed,
        states_center=torch.stack(means).mean(0),
        within=within_LDD,
        vectors_center=_vectors_center(domains),
    )


def solve(public: PublicStatistics, *, training: ProjectionTraining, blobs: BlobStore) -> Manifest:
    """Compute the projection in closed form and return its manifest. Raises OutOfSpace."""
    entries = {
        STATES_CENTER: tensors.write(blobs, public.states_center),
        VECTORS_CENTER: tensors.write(blobs, public.vectors_center),
    }
    dtype = tensors.TORCH_DTYPES[public.seed.tensors[tensor_names.FINAL_NORM].dtype]
    for layer, within_DD in enumerate(public.within):
        center_D = public.states_center[layer]
        whitening_DD = _whitening(within_DD, center_D, shrinkage=training.shrinkage)
        w1, w2 = _as_projection(whitening_DD, logit_spread=training.logit_spread)
        entries[tensor_names.projection(layer, 0)] = tensors.write(blobs, w1.to(dtype))
        entries[tensor_names.projection(layer, 1)] = tensors.write(blobs, w2.to(dtype))
    config = {
        "embedder": EMBEDDER,
        "embedder_digest": embedder_digest(),
        "states_embedder_digest": states_embedder_digest(public.seed.digest),
        "seed_digest": public.seed.digest,
        "num_hidden_layers": len(public.within),
        "training": training.model_dump(mode="json"),
        "metrics": {},
    }
    return Manifest(config=config, tensors=entries)


def _vectors_center(domains: Sequence[Sequence[Document]]) -> Tensor:
    """Return the mean [E] of the domains' mean encoder vectors."""
    encoder = Encoder()
    return torch.stack(
        [encoder.embed(sample_evenly(domain_documents)).mean(0) for domain_documents in domains]
    ).mean(0)


def _whitening(within_DD: Tensor, center_D: Tensor, *, shrinkage: float) -> Tensor:
    """Return B [D, D] with `B' B = S^-1` on the space orthogonal to the center c, and `B c = 0`.

    Router rows must be orthogonal to the mean router input: it is part of every token, and its
    product with the row of an unseen domain would be an arbitrary bias. `shrinkage` is the share of
    an isotropic covariance of the same size that is mixed into S.
    """
    within_DD, center_D = within_DD.double(), F.normalize(center_D.double(), dim=0)
    identity_DD = torch.eye(len(center_D), dtype=torch.float64)
    along_DD = center_D[:, None] * center_D
    across_DD = identity_DD - along_DD
    within_DD = across_DD @ within_DD @ across_DD
    even = within_DD.trace() / (len(center_D) - 1)
    # The part along the center only makes the matrix invertible.
    within_DD = (1 - shrinkage) * within_DD + even * (shrinkage * across_DD + along_DD)
    lower_DD = torch.linalg.cholesky(within_DD)
    whitening_DD: Tensor = torch.linalg.solve_triangular(lower_DD, across_DD, upper=False)
    return whitening_DD.float()


def _as_projection(whitening_DD: Tensor, *, logit_spread: float) -> tuple[Tensor, Tensor]:
    """Return W1 [2D, D + 1] and W2 [D, D] of a linear projection with the given whitening B.

    With `b` = `B d` and the constant coordinate 1, they satisfy
    `W2 (swish(a) * b) = logit_spread B' B d`.
    """
    hidden = len(whitening_DD)
    w1 = torch.zeros(2 * hidden, hidden + 1)
    w1[:hidden, -1] = SWISH_IS_ONE
    w1[hidden:, :-1] = whitening_DD
    return w1, logit_spread * whitening_DD.T
