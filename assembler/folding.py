"""Router rows from domain embeddings, by a projection that is there already.

Free of torch: an assembly needs no more than this, and should not wait for more.

Letters: L blocks, N experts, K principal directions of an expert's domain, R one more than K, D
hidden, E width of an encoder's vector. Routers see one number more than D or E, a constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from registry import arrays
from registry.arrays import Floats
from registry.blobs import BlobStore
from registry.manifests import Manifest, TensorEntry

# Where swish is 1: what the constant coordinate of a linear projection puts into `a`.
SWISH_IS_ONE = 1.2784645427610738
# Of a family projection: the mean router inputs [L, D] and the mean vector [E] of its domains.
STATES_CENTER = "states_center"
VECTORS_CENTER = "vectors_center"


@dataclass(frozen=True)
class Routing:
    """What a mix takes from a projection: one [N, D] of rows per block, and the domain embeddings
    [L, N, D + 1] they are made from, as the router sees them."""

    rows: list[Floats]
    domain_embeddings: Floats


def fold(
    projection: Manifest,
    states_NLRD: Floats,
    *,
    blobs: BlobStore,
    center: bool = True,
    learned: Mapping[str, TensorEntry] | None = None,
) -> Routing:
    """Router rows of experts, in their order, whose documents have these router inputs: their mean,
    and behind it the principal directions.

    `learned` are weights by which rows are made instead of the projection's own.
    """
    rows, embeddings = [], []
    own_weight = projection.config["training"]["own_weight"]
    center_LD = arrays.read(blobs, projection.tensors[STATES_CENTER])
    # A product of so few rows is as long as the reading of its weights. Threads that share it out
    # wait for each other, on a busy machine for seconds.
    with threadpool_limits(1, user_api="blas"):
        for layer in range(projection.config["num_hidden_layers"]):
            w1 = arrays.read(blobs, projection.tensors[f"{prefix(layer)}0.weight"])
            means_ND, directions_NKD = states_NLRD[:, layer, 0], states_NLRD[:, layer, 1:]
            centred_ND = means_ND - (center_LD[layer] if center else 0)
            embeddings.append(as_routed(centred_ND, directions_NKD, w1, own_weight=own_weight))
            if learned is not None:
                w1 = arrays.read(blobs, learned[f"{prefix(layer)}0.weight"])
            w2 = arrays.read(blobs, (learned or projection.tensors)[f"{prefix(layer)}1.weight"])
            rows.append(project(embeddings[-1], w1, w2))
    return Routing(rows, np.stack(embeddings))


def project(embeddings: Floats, w1: Floats, w2: Floats) -> Floats:
    """Rows [N, D] of domain embeddings: `W2 (swish(a) * b)`, `[a, b] = W1 d` (Nexus, section 3)."""
    a_ND, b_ND = np.split(embeddings @ w1.T, 2, axis=-1)
    rows_ND: Floats = (a_ND / (1 + np.exp(-a_ND)) * b_ND) @ w2.T
    return rows_ND


def as_routed(
    centred_ND: Floats, directions_NKD: Floats, w1: Floats, *, own_weight: float
) -> Floats:
    """What makes the rows that tell an expert's tokens, with the constant coordinate [N, D + 1].

    A row should not depend on what varies within the expert's own domain either. Were S, whose
    inverse the projection is, joined by the expert's own covariance U'U, the row would be
    `(S + w U'U)^-1 d`; the same row comes of the projection as it is with
    `d - w U' (I + w G G')^-1 G b`, where b and G are what W1 makes of d and U (Woodbury). The
    length is that which makes b of length 1: how far a domain lies from the centre says nothing
    of how sure its router should be.
    """
    whitening_DD = w1[len(w1) // 2 :, :-1]
    b_ND, own_NKD = centred_ND @ whitening_DD.T, directions_NKD @ whitening_DD.T
    inner_NKK = np.eye(own_NKD.shape[1]) + own_weight * own_NKD @ own_NKD.swapaxes(1, 2)
    shares_NK1 = np.linalg.solve(inner_NKK, own_weight * own_NKD @ b_ND[..., None])
    embeddings_ND = centred_ND - (shares_NK1 * directions_NKD).sum(1)
    lengths_N1 = np.linalg.norm(embeddings_ND @ whitening_DD.T, axis=-1, keepdims=True)
    return _with_constant(embeddings_ND / np.maximum(lengths_N1, 1e-12))


def vectors_as_routed(centred_NE: Floats) -> Floats:
    """Vectors of an encoder at length 1, with the constant coordinate [N, E + 1]."""
    lengths_N1 = np.linalg.norm(centred_NE, axis=-1, keepdims=True)
    return _with_constant(centred_NE / np.maximum(lengths_N1, 1e-12))


def prefix(layer: int) -> str:
    """What the names of a block's two weights begin with."""
    return f"model.layers.{layer}.mlp.gate.projection."


def _with_constant(values: Floats) -> Floats:
    return np.pad(values, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float32)
