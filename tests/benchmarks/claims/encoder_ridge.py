"""What the family projection was before: a ridge regression to the vectors of a text encoder.

For every block the linear map [D, E] from a router input to the vector of the document that it
stands in; an expert's row is what its documents' mean vector makes of it. Kept to compare with.
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
    """All experts of a family with such rows, as far spread as those of the default."""
    family, blobs = mixes.family, mixes.blobs

    def make() -> str:
        found = rows(
            family.seed,
            list(family.public.values()),
            torch.tensor([mixes.vector(name) for name in mixes.domains]),
            logit_spread=ProjectionTraining().logit_spread,
            blobs=blobs,
        )
        made = mixes.manifest(Mix(experts=mixes.domains, preset="linear"))
        entries = {
            f"model.layers.{layer}.mlp.gate.weight": tensors.write(blobs, rows_ND.bfloat16())
            for layer, rows_ND in enumerate(found)
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
    """One [N, D] per block for experts whose documents have these mean vectors."""
    texts = [[d for d in own if d.split == "train"][:DOCUMENTS_PER_DOMAIN] for own in public]
    encoder = Encoder()
    by_domain = [encoder.embed([d.text[:CHARACTERS] for d in own]) for own in texts]
    center_E = torch.stack([own.mean(0) for own in by_domain]).mean(0)
    vectors_CE = torch.cat(by_domain) - center_E
    inputs = RouterInputs(seed, blobs)
    read = [
        torch.stack(next(inputs.batches([document], num_tokens=WINDOW_TOKENS))).bfloat16()
        for own in texts
        for document in own
    ]
    lengths_C = torch.tensor([own.shape[1] for own in read])
    targets_TE = vectors_CE.repeat_interleave(lengths_C, dim=0)
    return list(_solved(torch.cat(read, 1), targets_TE, vectors_NE - center_E, logit_spread))


def _solved(
    states_LTD: Tensor, targets_TE: Tensor, vectors_NE: Tensor, logit_spread: float
) -> Iterator[Tensor]:
    for states_TD in states_LTD:
        states_TD = states_TD.float()
        # No row may meet the mean, which is in every token.
        mean_D = F.normalize(states_TD.mean(0), dim=0)
        states_TD = states_TD - (states_TD @ mean_D)[:, None] * mean_D
        covariance_DD = states_TD.T @ states_TD / len(states_TD)
        covariance_DD += RIDGE * covariance_DD.diagonal().mean() * torch.eye(len(covariance_DD))
        map_DE = torch.linalg.solve(covariance_DD, states_TD.T @ targets_TE / len(states_TD))
        map_DE -= mean_D[:, None] * (mean_D @ map_DE)
        rows_ND = F.normalize(vectors_NE, dim=-1) @ map_DE.T
        yield logit_spread * rows_ND / (states_TD @ rows_ND.T).std()
