"""Compute router rows from domain embeddings by an existing projection.

Free of torch, because an assembly needs only this part and torch takes seconds to load.

Letters: L blocks, N experts, K principal directions of an expert's domain, R = K + 1, D hidden, E
width of an encoder's vector. Routers see one coordinate more than D or E, a constant.
"""

from collections.abc import Callable, Mapping, Sequence
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
# A learned projection is no longer linear, so one scaling of an embedding is not exact.
SCALINGS = 3
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


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Routers with a projection as a mix has them, by tensor name.

    `places` has the number of each expert's row in `rows`, or None for an expert that joins.
    """

    projection: Mapping[str, TensorEntry]
    rows: Mapping[str, TensorEntry]
    places: Sequence[int | None]


def fold_rows(
    projection: Manifest,
    states_NLRD: Floats,
    *,
    blobs: BlobStore,
    center: bool = True,
    scale: float = 1.0,
    learned: Learned | None = None,
) -> FoldedRouters:
    """Return the router rows of experts, in their order, from their documents' router inputs.

    `states_NLRD` hold per expert and block the mean, then the principal directions. `center`
    subtracts the family's mean, `scale` is the length of the embeddings (see `router_embeddings`),
    by which the rows grow. With `learned` the rows come from the projection that a mix has learned,
    and are as sure as the rows that it has learned, see `_as_sure`.
    """
    own_weight = projection.config["training"]["own_weight"]
    center_LD = numpy_tensors.read(blobs, projection.tensors[STATES_CENTER])

    def fold_block(layer: int) -> tuple[Floats, Floats]:
        means_ND, directions_NKD = states_NLRD[:, layer, 0], states_NLRD[:, layer, 1:]

        def fold(weights: Mapping[str, TensorEntry]) -> tuple[Floats, Floats]:
            w1, w2 = (weights[tensor_names.projection(layer, number)] for number in (0, 1))
            embeddings = router_embeddings(
                means_ND - (center_LD[layer] if center else 0),
                directions_NKD,
                whiten=partial(_whitened, w1=w1, blobs=blobs),
                own_weight=own_weight,
                scale=scale,
            )
            return project(embeddings, w1, w2, blobs=blobs), embeddings

        rows, embeddings = fold(projection.tensors)
        if learned is None or _are_equal(learned.projection, projection.tensors, layer):
            return rows, embeddings
        return _as_sure(
            fold(learned.projection), rows, directions_NKD, layer, learned=learned, blobs=blobs
        )

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


def _are_equal(
    one: Mapping[str, TensorEntry], other: Mapping[str, TensorEntry], layer: int
) -> bool:
    names = [tensor_names.projection(layer, number) for number in (0, 1)]
    return all(one[name].digest == other[name].digest for name in names)


def _as_sure(
    folded: tuple[Floats, Floats],
    initial_ND: Floats,
    directions_NKD: Floats,
    layer: int,
    *,
    learned: Learned,
    blobs: BlobStore,
) -> tuple[Floats, Floats]:
    """Return `folded`, rows and embeddings by a learned projection, with longer embeddings.

    A finetune makes the rows that it trains longer: their logits spread more within other domains.
    The projection learns little of that for other embeddings, so a joining expert often loses
    against them on its own domain. The rows by the family's projection, `initial_ND`, have a spread
    too. The returned rows have that spread times the mean growth of the trained rows.
    """
    rows_ND, embeddings_NM = folded
    kept = {n: place for n, place in enumerate(learned.places) if place is not None}
    if not kept or len(kept) == len(learned.places):
        return folded
    before_N, now_N = (_spreads(rows, directions_NKD) for rows in (initial_ND, rows_ND))
    trained_ND = initial_ND.copy()
    all_rows_ND = numpy_tensors.read(blobs, learned.rows[tensor_names.router_rows(layer)])
    trained_ND[list(kept)] = all_rows_ND[list(kept.values())]
    trained_N = _spreads(trained_ND, directions_NKD)
    growth = trained_N[list(kept)].mean() / before_N[list(kept)].mean()
    w1, w2 = (learned.projection[tensor_names.projection(layer, number)] for number in (0, 1))
    for _ in range(SCALINGS):
        scales_N1 = (growth * before_N / np.maximum(now_N, 1e-12))[:, None]
        embeddings_NM = np.concatenate(
            [scales_N1 * embeddings_NM[:, :-1], embeddings_NM[:, -1:]], axis=1
        )
        rows_ND = project(embeddings_NM, w1, w2, blobs=blobs)
        now_N = _spreads(rows_ND, directions_NKD)
    return rows_ND, embeddings_NM


def _spreads(rows_ND: Floats, directions_NKD: Floats) -> Floats:
    """Return the standard deviation [N] of each row's logits within another expert's domain.

    It is the mean over all other domains.
    """
    products_NNK = np.einsum("nd,mkd->nmk", rows_ND, directions_NKD)
    deviations_NN = np.sqrt((products_NNK**2).sum(-1))
    others: Floats = (deviations_NN.sum(-1) - deviations_NN.diagonal()) / (len(rows_ND) - 1)
    return others


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
