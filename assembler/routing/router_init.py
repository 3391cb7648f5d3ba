"""Initialize the routers of a mix: rows per routed expert, and the weights that the rows depend on.

Every row is drawn or computed for its expert alone, whatever other experts there are. A mix that is
extended thus gets the rows that it would have had from the beginning. Only the rows of `dume`
depend on all experts; with `router_extension: reset` an extension computes all of them again.

Letters: L blocks, N routed experts, n of them with documents, D hidden, R router hidden, M
domain-embedding width, E width of an encoder's vector.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from assembler.recipes.recipe import GIVES_ROWS, Recipe
from assembler.routing import router_rows
from assembler.routing.router_rows import Learned
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.architecture import Architecture, projection_shapes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.errors import Incompatible

# The usual standard deviation of new transformer weights: logits start near zero.
INITIAL_STD = 0.02
# Above it, rows are too alike to tell tokens apart; mergekit warns from the same number on.
MAX_CONDITION = 5.0


@dataclass(frozen=True, kw_only=True)
class Routers:
    """The routers of a mix, by tensor name.

    `rows` have one row per routed expert. `shared` do not depend on the number of experts.
    `domain_embeddings` [L, N, M] exist for routers with a projection.
    """

    rows: dict[str, Floats]
    shared: dict[str, TensorEntry] = field(default_factory=dict)
    domain_embeddings: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Domains:
    """Data about each expert's domain, in the order of the recipe's experts.

    `states` are router inputs [n, L, R, D], `vectors` mean encoder vectors [n, E], `experts` the
    dense checkpoints. Only the data that the recipe's router uses must be given.
    """

    states: Floats
    vectors: Floats
    documents: Sequence[Sequence[Document]]
    experts: Sequence[Manifest] = ()


def initial_routers(
    recipe: Recipe,
    mix: Architecture,
    *,
    seed: Manifest,
    domains: Domains,
    family: Manifest | None,
    blobs: BlobStore,
    learned: Learned | None = None,
) -> Routers:
    """Return the routers of all experts of `mix`.

    `family` is the family's projection, where one is needed. `learned` are the routers of a base
    mix, whose projection is used instead of the family's. A routed seed has no domain: its
    embedding is the family's center, where rows are zero.

    Raises Incompatible for a Nexus router with rows from documents, or from a ridge regression.
    """
    if recipe.embeds_with_encoder:
        assert family is not None
        routers = _of_vectors(recipe, mix, domains.vectors, family, learned, blobs)
    elif recipe.router == "nexus":
        assert family is not None
        routers = _of_states(recipe, mix, domains.states, family, learned, blobs)
    elif recipe.router_init == "documents":
        # Imported here because only these rows need the network, and with it torch.
        from assembler.routing import document_rows

        row_ND = recipe.router_scale * document_rows.rows(seed, domains.documents, blobs=blobs)
        routers = Routers(rows=_by_name([row_ND] * mix.num_hidden_layers, mix))
    elif recipe.router_init == "dume":
        from assembler.routing import dume_rows

        made = dume_rows.rows(domains.experts, domains.documents, blobs=blobs)
        routers = Routers(rows=_by_name([recipe.router_scale * row_ND for row_ND in made], mix))
    elif recipe.router_init == "projection":
        assert family is not None
        folded = router_rows.fold_rows(
            family, domains.states, blobs=blobs, scale=recipe.router_scale
        )
        routers = Routers(rows=_by_name(folded.rows, mix))
    else:
        routers = _random(recipe, mix, blobs)
    routers.rows.update(_attention_rows(recipe, mix, routers.rows))
    return routers


def condition_number(rows_ND: Floats) -> float:
    """Return the condition number of rows normalized to length 1.

    It is 1 for orthogonal rows. It grows without bound as rows point the same way, so that the
    router cannot tell tokens apart.
    """
    lengths_N1 = np.linalg.norm(rows_ND, axis=-1, keepdims=True)
    values = np.linalg.svd(rows_ND / np.maximum(lengths_N1, 1e-12), compute_uv=False)
    return float(values[0] / max(values[-1], 1e-12))


def _of_states(
    recipe: Recipe,
    mix: Architecture,
    states_NLRD: Floats,
    family: Manifest,
    learned: Learned | None,
    blobs: BlobStore,
) -> Routers:
    """Return Nexus routers whose rows come from router inputs through the family's projection."""
    if recipe.router_init in GIVES_ROWS:
        raise Incompatible(
            f"router_init {recipe.router_init!r} gives rows, but a 'nexus' router computes its rows"
            " by a projection"
        )
    folded = router_rows.fold_rows(
        family,
        states_NLRD,
        blobs=blobs,
        center=recipe.center_embeddings,
        scale=recipe.router_scale,
        learned=learned,
    )
    weights = {n: entry for n, entry in family.tensors.items() if tensor_names.is_projection(n)}
    return Routers(
        rows=_by_name(folded.rows, mix),
        shared=weights if learned is None else dict(learned.projection),
        domain_embeddings=_with_seed(folded.domain_embeddings, mix),
    )


def _of_vectors(
    recipe: Recipe,
    mix: Architecture,
    vectors_NE: Floats,
    family: Manifest,
    learned: Learned | None,
    blobs: BlobStore,
) -> Routers:
    """Return routers with one encoder vector for all blocks and a random projection, as in
    Nexus."""
    weights = (
        _random_projection(recipe, mix, family, blobs) if learned is None else learned.projection
    )
    if recipe.center_embeddings:
        vectors_NE = vectors_NE - numpy_tensors.read(
            blobs, family.tensors[router_rows.VECTORS_CENTER]
        )
    embeddings_NM = _with_seed(router_rows.encoder_embeddings(vectors_NE), mix)
    rows = [
        router_rows.project(
            embeddings_NM,
            weights[tensor_names.projection(layer, 0)],
            weights[tensor_names.projection(layer, 1)],
            blobs=blobs,
        )
        for layer in range(mix.num_hidden_layers)
    ]
    return Routers(
        rows=_by_name(rows, mix),
        shared=dict(weights),
        domain_embeddings=np.repeat(embeddings_NM[None], mix.num_hidden_layers, axis=0),
    )


def _random_projection(
    recipe: Recipe, mix: Architecture, family: Manifest, blobs: BlobStore
) -> dict[str, TensorEntry]:
    """Draw and store W1 and W2 of every block.

    W1 keeps the size of its inputs. W2 is small, so that a mix starts near even routing.
    """
    shapes = projection_shapes(mix.hidden_size, mix.domain_embedding_size)
    dtype = family.tensors[tensor_names.projection(0, 0)].dtype
    weights: dict[str, TensorEntry] = {}
    for layer in range(mix.num_hidden_layers):
        for part, shape in shapes.items():
            name = f"{tensor_names.router(layer)}.{part}"
            std = shape[1] ** -0.5 if ".0." in part else INITIAL_STD
            values = _normal(recipe, name, shape, std=std)
            weights[name] = numpy_tensors.write(blobs, values, dtype=dtype)
    return weights


def _random(recipe: Recipe, mix: Architecture, blobs: BlobStore) -> Routers:
    """Return routers with random rows and, for `mlp` routers, random hidden layers."""
    rows: dict[str, Floats] = {}
    shared: dict[str, TensorEntry] = {}
    width = mix.router_hidden_size or mix.hidden_size
    for layer in range(mix.num_hidden_layers):
        name = tensor_names.router_rows(layer)
        rows[name] = _random_rows(recipe, mix, name, width)
        if mix.router == "mlp":
            name = tensor_names.router_hidden(layer)
            hidden_RD = _normal(recipe, name, (width, mix.hidden_size), std=mix.hidden_size**-0.5)
            shared[name] = numpy_tensors.write(blobs, hidden_RD, dtype="BF16")
    return Routers(rows=rows, shared=shared)


def _attention_rows(
    recipe: Recipe, mix: Architecture, ffn_rows: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Return the rows of attention routers.

    With random initialization they are drawn, as in the papers. Otherwise they equal the FFN
    router's rows where both read the same normed input, and are zero, an even mixture, where they
    do not.
    """
    if mix.attention == "average":
        return {}
    rows: dict[str, Floats] = {}
    for layer in range(mix.num_hidden_layers):
        name = tensor_names.attention_router_rows(layer)
        if recipe.router_init == "random":
            rows[name] = _random_rows(recipe, mix, name, mix.hidden_size)
        elif mix.parallel_block:
            rows[name] = ffn_rows[tensor_names.router_rows(layer)]
        else:
            rows[name] = np.zeros((mix.num_experts, mix.hidden_size), np.float32)
    return rows


def _random_rows(recipe: Recipe, mix: Architecture, name: str, width: int) -> Floats:
    """Draw one row per routed expert; a row depends on the expert's name, not on its number."""
    return np.stack(
        [
            _normal(recipe, f"{name} of {expert}", (width,), std=INITIAL_STD)
            for expert in mix.expert_names
        ]
    )


def _normal(recipe: Recipe, what: str, shape: tuple[int, ...], *, std: float) -> Floats:
    """Draw values for the name `what`; the order of draws does not matter."""
    digest = hashlib.sha256(f"{recipe.seed} {what}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return random.standard_normal(shape, np.float32) * np.float32(std)


def _by_name(rows: Sequence[Floats], mix: Architecture) -> dict[str, Floats]:
    """Return rows [n, D] of every block under their tensor names in a mix."""
    return {
        tensor_names.router_rows(layer): _with_seed(block_rows, mix)
        for layer, block_rows in enumerate(rows)
    }


def _with_seed(rows: Floats, mix: Architecture) -> Floats:
    """Append zeros for a routed seed, on the last axis but one."""
    missing = mix.num_experts - rows.shape[-2]
    return np.pad(rows, [(0, 0)] * (rows.ndim - 2) + [(0, missing), (0, 0)])
