"""Measure the similarity of a mix's domains, before the projection and after it.

Nexus (arXiv 2408.15901, section 5.3) shows that the projection keeps close domains close.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.vllm_plugin import tensors
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims.mixes import Mix, Mixes


def measure(mixes: Mixes, *, budgets: Sequence[int]) -> dict[str, Any]:
    """Return cosines [N, N] of three representations of the domains.

    They are the mean vectors of the text encoder, the inputs of the projection, and the router rows
    after each budget of the default finetune. Inputs and rows give the mean over blocks.
    """
    experts = mixes.domains
    vectors_ND = torch.tensor([mixes.vector(name) for name in experts])
    assembled = mixes.manifest(Mix(experts=experts))
    # The last coordinate is the same for all domains.
    embeddings_LNM = _read(mixes, assembled, "model.domain_embeddings")[..., :-1]
    maps = {
        "text encoder's vectors": _cosines(vectors_ND[None]),
        "domain embeddings": _cosines(embeddings_LNM),
    }
    for tokens in budgets:
        made = mixes.manifest(Mix(experts=experts, tokens=tokens))
        rows_LND = torch.stack(
            [
                _read(mixes, made, f"model.layers.{layer}.mlp.gate.weight")
                for layer in range(made.architecture.num_hidden_layers)
            ]
        )
        maps[f"router rows, {tokens:,} tokens"] = _cosines(rows_LND)
    return {"domains": list(experts), "cosines": maps}


def closest(names: Sequence[str], cosines: Sequence[Sequence[float]]) -> tuple[str, str, float]:
    """Return the two closest domains and their cosine."""
    apart = np.array(cosines) - 2 * np.eye(len(names))
    one, other = map(int, np.unravel_index(apart.argmax(), apart.shape))
    return names[one], names[other], float(apart[one, other])


def mean_apart(cosines: Sequence[Sequence[float]]) -> float:
    """Return the mean cosine of two different domains."""
    values = np.array(cosines)
    return float(values[~np.eye(len(values), dtype=bool)].mean())


def _read(mixes: Mixes, made: Manifest, name: str) -> Tensor:
    return tensors.read(mixes.blobs, made.tensors[name]).float()


def _cosines(vectors_LND: Tensor) -> list[list[float]]:
    """Return the cosines of all pairs [N, N], as the mean over L blocks."""
    unit_LND = F.normalize(vectors_LND, dim=-1)
    cosines_NN: list[list[float]] = (unit_LND @ unit_LND.mT).mean(0).tolist()
    return [[round(cosine, 3) for cosine in row] for row in cosines_NN]
