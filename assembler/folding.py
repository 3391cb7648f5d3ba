"""Router rows from domain embeddings, by a projection that is there already.

Free of torch: an assembly needs no more than this, and should not wait for more.

Letters: N experts, D hidden, M width of an embedder's vector; routers see M + 1 numbers, the last
of them a constant.
"""

from dataclasses import dataclass

import numpy as np

from registry import arrays
from registry.arrays import Floats
from registry.blobs import BlobStore
from registry.manifests import Manifest

# Where swish is 1: what the constant coordinate of a regressed projection puts into `a`.
SWISH_IS_ONE = 1.2784645427610738


@dataclass(frozen=True)
class Routing:
    """What a mix takes from a projection: one [N, D] of rows per block, and the [N, M + 1] they are
    made from, as the router sees them."""

    rows: list[Floats]
    domain_embeddings: Floats


def fold(projection: Manifest, vectors_NM: Floats, *, blobs: BlobStore) -> Routing:
    """Router rows of experts whose documents have these mean vectors, in their order."""
    embeddings = as_routed(vectors_NM - arrays.read(blobs, projection.tensors["domain_center"]))
    rows = [
        project(
            embeddings,
            arrays.read(blobs, projection.tensors[f"{prefix(layer)}0.weight"]),
            arrays.read(blobs, projection.tensors[f"{prefix(layer)}1.weight"]),
        )
        for layer in range(projection.config["num_hidden_layers"])
    ]
    return Routing(rows, embeddings)


def project(embeddings: Floats, w1: Floats, w2: Floats) -> Floats:
    """Rows [N, D] of domain embeddings: `W2 (swish(a) * b)`, `[a, b] = W1 d` (Nexus, section 3)."""
    a_ND, b_ND = np.split(embeddings @ w1.T, 2, axis=-1)
    rows_ND: Floats = (a_ND / (1 + np.exp(-a_ND)) * b_ND) @ w2.T
    return rows_ND


def as_routed(centred_NM: Floats) -> Floats:
    """Of length 1, since how far a domain lies from the centre says nothing of how much text is
    its; and with the constant coordinate [N, M + 1]."""
    lengths_N1 = np.linalg.norm(centred_NM, axis=-1, keepdims=True)
    unit_NM = centred_NM / np.maximum(lengths_N1, 1e-12)
    return np.pad(unit_NM, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float32)


def prefix(layer: int) -> str:
    """What the names of a block's two weights begin with."""
    return f"model.layers.{layer}.mlp.gate.projection."
