"""Make router rows by an earlier projection: a ridge regression to vectors of a text encoder.

For every block it learns a linear map [D, E] from a router input to the vector of its document.
The map and the mean vector of an expert's documents give the row of the expert. The ablations
compare the current projection with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.recipes.recipe import ProjectionTraining
from assembler.routing.router_inputs import RouterInputs
from assembler.routing.text_encoder import Encoder
from engine.gates.mix_gate import WINDOW_TOKENS
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims.mixes import Mix, Mixes

DOCUMENTS_PER_DOMAIN = 48
CHARACTERS = 900
RIDGE = 0.03


def mix(mixes: Mixes) -> Manifest:
    """Return the mix of all experts with these rows; its logit spread is the default's."""
    family, blobs = mixes.family, mixes.blobs

    def make() -> str:
        made_rows = rows(
            family.seed,
            list(family.public.values()),
            torch.tensor([mixes.vector(name) for name in mixes.domains]),
            logit_spread=ProjectionTraining().logit_spread,
            blobs=blobs,
        )
        made = mixes.manifest(Mix(experts=mixes.domains, preset="linear"))
        entries = {
            f"model.layers.{layer}.mlp.gate.weight": tensors.write(blobs, rows_ND.bfloat16())
            for layer, rows_ND in enumerate(made_rows)
        }
        return manifests.store(blobs, replace(made, tensors=made.tensors | entries))

    key = [family.seed.digest, list(family.experts)]
    return manifests.load(blobs, mixes.once("encoder-ridge", key, make))


def rows(
    seed: Manifest,
    public: Sequence[Sequence[Document]],
    vectors_NE: Tensor,
    *,
    logit_spread: float,
    blobs: LocalBlobs,
) -> list[Tensor]:
    """Return router rows [N, D] for each block.

    `vectors_NE` are the mean vectors of the experts' documents; the map learns from `public`.
    """
    texts = [[d for d in domain if d.split == "train"][:DOCUMENTS_PER_DOMAIN] for domain in public]
    encoder = Encoder()
    by_domain = [encoder.embed([d.text[:CHARACTERS] for d in domain]) for domain in texts]
    center_E = torch.stack([vectors.mean(0) for vectors in by_domain]).mean(0)
    vectors_CE = torch.cat(by_domain) - center_E
    inputs = RouterInputs(seed, blobs)
    read = [
        torch.stack(next(inputs.batches([document], num_tokens=WINDOW_TOKENS))).bfloat16()
        for domain in texts
        for document in domain
    ]
    lengths_C = torch.tensor([states.shape[1] for states in read])
    targets_TE = vectors_CE.repeat_interleave(lengths_C, dim=0)
    return list(_solved(torch.cat(read, 1), targets_TE, vectors_NE - center_E, logit_spread))


def _solved(
    states_LTD: Tensor, targets_TE: Tensor, vectors_NE: Tensor, logit_spread: float
) -> Iterator[Tensor]:
    for states_TD in states_LTD:
        states_TD = states_TD.float()
        # Make rows orthogonal to the mean state, because every token contains it.
        mean_D = F.normalize(states_TD.mean(0), dim=0)
        states_TD = states_TD - (states_TD @ mean_D)[:, None] * mean_D
        covariance_DD = states_TD.T @ states_TD / len(states_TD)
        covariance_DD += RIDGE * covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
        map_DE = torch.linalg.solve(covariance_DD, states_TD.T @ targets_TE / len(states_TD))
        map_DE -= mean_D[:, None] * (mean_D @ map_DE)
        rows_ND = F.normalize(vectors_NE, dim=-1) @ map_DE.T
        yield logit_spread * rows_ND / (states_TD @ rows_ND.T).std()
