"""Compute router rows from domain embeddings by an existing projection.

Free of torch, because an assembly needs only this part and torch takes seconds to load.

Letters: L blocks, N experts, K principal directions of an expert's domain, R = K + 1, D hidden, E
width of an encoder's vector. Routers see one coordinate more than D or E, a constant.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats

# Blocks computed at a time: each needs a core and a few MB.
BLOCKS_AT_A_TIME = 2
# swish of this value is 1; the constant coordinate of a linear projection feeds it into `a`.
SWISH_IS_ONE = 1.2784645427610738
# Tensors of a family projection: the mean router inputs [L, D] and the mean encoder vector [E] of
# its domains.
STATES_CENTER = "states_center"
VECTORS_CENTER = "vectors_center"


@dataclass(frozen=True)
class FoldedRouters:
    """The result of a projection for a mix.

    `rows` holds [N, D] per block. `domain_embeddings` [L, N, D + 1] are the embeddings that the
    rows are computed from, as the router sees them.
    """

    rows: list[Floats]
    domain_embeddings: Floats


def fold_rows(
    projection: Manifest,
    states_NLRD: Floats,
    *,
    blobs: BlobStore,
    center: bool = True,
    scale: float = 1.0,
    learned: Mapping[str, TensorEntry] | None = None,
) -> FoldedRouters:
    """Return the router rows of experts, in their order, from their documents' router inputs.

    `states_NLRD` hold per expert and block the mean, then the principal directions. `center`
    subtracts the family's mean, `scale` is the length of the embeddings (see `router_embeddings`),
    by which the rows grow. `learned` are projection weights to use instead of the projection's
    own, also for the length of the embeddings: where a finetune has moved W1, another W1 would give
    a joining expert a row of another length than the rows that the finetune has trained.
    """
    own_weight = projection.config["training"]["own_weight"]
    center_LD = numpy_tensors.read(blobs, projection.tensors[STATES_CENTER])

    def fold_block(layer: int) -> tuple[Floats, Floats]:
        w1, w2 = (
            (learned or projection.tensors)[tensor_names.projection(layer, number)]
            for number in (0, 1)
        )
        means_ND, directions_NKD = states_NLRD[:, layer, 0], states_NLRD[:, layer, 1:]
        embeddings = router_embeddings(
            means_ND - (center_LD[layer] if center else 0),
            directions_NKD,
            whiten=partial(_whitened, w1=w1, blobs=blobs),
            own_weight=own_weight,
            scale=scale,
        )
        return project(embeddings, w1, w2, blobs=blobs), embeddings

    # The time of a product with so few rows is the time to read its weights. BLAS threads that
    # share one product wait for each other, on a busy machine for seconds; blocks do not.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(BLOCKS_AT_A_TIME) as pool,
    ):
        rows, embeddings = zip(
            *pool.map(fold_block, range(projection.config["num_hidden_layers"])), strict=True
        )
    return FoldedRouters(list(rows), np.stack(embeddings))


def project(embeddings: Floats, w1: TensorEntry, w2: TensorEntry, *, blobs: BlobStore) -> Floats:
    """Return rows [N, D]: `W2 (swish(a) * b)`, `[a, b] = W1 d` (Nexus, section 3)."""
    a_ND, b_ND = np.split(numpy_tensors.product(embeddings, blobs, w1), 2, axis=-1)
    return numpy_tensors.product(a_ND / (1 + np.exp(-a_ND)) * b_ND, blobs, w2)


def router_embeddings(
    centered_ND: Floats,
    directions_NKD: Floats,
    *,
    whiten: Callable[[Floats], Floats],
    own_weight: float,
    scale: float = 1.0,
) -> Floats:
    """Return domain embeddings [N, D + 1] whose rows recognize each expert's tokens.

    A row should also not depend on what varies within the expert's own domain. The projection is
    the inverse of a covariance S. With the expert's own covariance U'U added to S, the row would be
    `(S + w U'U)^-1 d`. The unchanged projection gives the same row for the embedding
    `d - w U' (I + w G G')^-1 G b`, where b and G are W1 applied to d and U by `whiten` (Woodbury
    identity). The embedding is scaled so that b has the length `scale`: how far a domain lies from
    the center says nothing about how sure its router should be.
    """
    whitened = whiten(np.concatenate([centered_ND[:, None], directions_NKD], 1))
    b_ND, g_NKD = whitened[:, 0], whitened[:, 1:]
    inner_NKK = np.eye(g_NKD.shape[1]) + own_weight * g_NKD @ g_NKD.swapaxes(1, 2)
    shares_NK1 = np.linalg.solve(inner_NKK, own_weight * g_NKD @ b_ND[..., None])
    embeddings_ND = centered_ND - (shares_NK1 * directions_NKD).sum(1)
    b_ND = b_ND - (shares_NK1 * g_NKD).sum(1)
    lengths_N1 = np.linalg.norm(b_ND, axis=-1, keepdims=True)
    return _with_constant(scale * embeddings_ND / np.maximum(lengths_N1, 1e-12))


def _whitened(x: Floats, *, w1: TensorEntry, blobs: BlobStore) -> Floats:
    """Return b of `[a, b] = W1 x` for `x` [..., D] without the constant coordinate."""
    constant = [(0, 0)] * (x.ndim - 1) + [(0, 1)]
    return numpy_tensors.product(np.pad(x, constant), blobs, w1, first_row=w1.shape[0] // 2)


def encoder_embeddings(centered_NE: Floats) -> Floats:
    """Return encoder vectors normalized to length 1, with the constant coordinate [N, E + 1]."""
    lengths_N1 = np.linalg.norm(centered_NE, axis=-1, keepdims=True)
    return _with_constant(centered_NE / np.maximum(lengths_N1, 1e-12))


def _with_constant(values: Floats) -> Floats:
    return np.pad(values, ((0, 0), (0, 1)), constant_values=1.0).astype(np.float32)
