"""The routers of a mix before anything is trained: rows per routed expert, and what they rest on.

Every row is drawn or computed for its expert alone, whatever experts stand beside it: a mix that
is extended gets the rows that it would have got from the beginning.

Letters: L blocks, N routed experts, n of them with documents, D hidden, R router hidden, M
domain-embedding width, E width of an encoder's vector.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from assembler.recipes.recipe import Recipe
from assembler.routing import router_rows
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints import numpy_tensors
from registry.checkpoints.architecture import Architecture, projection_shapes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.errors import Incompatible

# The common standard deviation of freshly drawn transformer weights: logits start near zero.
INITIAL_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Routers:
    """By tensor name. `rows` have one row per routed expert; `shared` do not depend on how many
    there are; `domain_embeddings` [L, N, M] belong to routers with a projection."""

    rows: dict[str, Floats]
    shared: dict[str, TensorEntry] = field(default_factory=dict)
    domain_embeddings: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class Domains:
    """What is known of each expert's domain, in the order of the recipe's experts: router inputs
    [n, L, R, D], mean vectors of an encoder [n, E], documents. Only what the recipe rests on
    has to be there."""

    states: Floats
    vectors: Floats
    documents: Sequence[Sequence[Document]]


def initial_routers(
    recipe: Recipe,
    mix: Architecture,
    *,
    seed: Manifest,
    domains: Domains,
    family: Manifest | None,
    blobs: BlobStore,
    learned: Mapping[str, TensorEntry] | None = None,
) -> Routers:
    """Routers of all experts of `mix`. `family` is the family's projection, where one is needed;
    `learned` are the projection's weights as a base mix has them, instead of the family's.

    A routed seed knows no domain: it stands at the family's center, where rows are zero.
    """
    if recipe.embeds_with_encoder:
        assert family is not None
        routers = _of_vectors(recipe, mix, domains.vectors, family, learned, blobs)
    elif recipe.router == "nexus":
        assert family is not None
        routers = _of_states(recipe, mix, domains.states, family, learned, blobs)
    elif recipe.router_init == "documents":
        # The only rows that need the network, and with it torch.
        from assembler.routing import document_rows

        row_ND = document_rows.rows(seed, domains.documents, blobs=blobs)
        routers = Routers(rows=_by_name([row_ND] * mix.num_hidden_layers, mix))
    elif recipe.router_init == "projection":
        assert family is not None
        folded = router_rows.fold_rows(family, domains.states, blobs=blobs)
        routers = Routers(rows=_by_name(folded.rows, mix))
    else:
        routers = _random(recipe, mix, blobs)
    routers.rows.update(_attention_rows(recipe, mix, routers.rows))
    return routers


def condition_number(rows_ND: Floats) -> float:
    """Condition number of rows brought to length 1: 1 when orthogonal, without bound when they
    point the same way, and tokens cannot be told apart."""
    lengths_N1 = np.linalg.norm(rows_ND, axis=-1, keepdims=True)
    values = np.linalg.svd(rows_ND / np.maximum(lengths_N1, 1e-12), compute_uv=False)
    return float(values[0] / max(values[-1], 1e-12))


def _of_states(
    recipe: Recipe,
    mix: Architecture,
    states_NLRD: Floats,
    family: Manifest,
    learned: Mapping[str, TensorEntry] | None,
    blobs: BlobStore,
) -> Routers:
    if recipe.router_init == "documents":
        raise Incompatible("documents give rows, and a 'nexus' router learns a projection to rows")
    folded = router_rows.fold_rows(
        family, states_NLRD, blobs=blobs, center=recipe.center_embeddings, learned=learned
    )
    weights = {n: entry for n, entry in family.tensors.items() if ".gate.projection." in n}
    return Routers(
        rows=_by_name(folded.rows, mix),
        shared=dict(learned or weights),
        domain_embeddings=_with_seed(folded.domain_embeddings, mix),
    )


def _of_vectors(
    recipe: Recipe,
    mix: Architecture,
    vectors_NE: Floats,
    family: Manifest,
    learned: Mapping[str, TensorEntry] | None,
    blobs: BlobStore,
) -> Routers:
    """As Nexus has it: one vector of an encoder for all blocks, and a projection that starts at
    random."""
    weights = learned or _random_projection(recipe, mix, family, blobs)
    if recipe.center_embeddings:
        vectors_NE = vectors_NE - numpy_tensors.read(
            blobs, family.tensors[router_rows.VECTORS_CENTER]
        )
    embeddings_NM = _with_seed(router_rows.encoder_embeddings(vectors_NE), mix)
    rows = [
        router_rows.project(
            embeddings_NM,
            weights[f"{router_rows.prefix(layer)}0.weight"],
            weights[f"{router_rows.prefix(layer)}1.weight"],
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
    """Fresh W1 and W2 of every block: W1 keeps the size of what it reads, and W2 is small, so that
    a mix starts near even routing."""
    shapes = projection_shapes(mix.hidden_size, mix.domain_embedding_size)
    dtype = family.tensors[f"{router_rows.prefix(0)}0.weight"].dtype
    weights: dict[str, TensorEntry] = {}
    for layer in range(mix.num_hidden_layers):
        for part, shape in shapes.items():
            name = f"{_ffn(layer)}{part}"
            std = shape[1] ** -0.5 if ".0." in part else INITIAL_STD
            values = _normal(recipe, name, shape, std=std)
            weights[name] = numpy_tensors.write(blobs, values, dtype=dtype)
    return weights


def _random(recipe: Recipe, mix: Architecture, blobs: BlobStore) -> Routers:
    rows: dict[str, Floats] = {}
    shared: dict[str, TensorEntry] = {}
    width = mix.router_hidden_size or mix.hidden_size
    for layer in range(mix.num_hidden_layers):
        rows[f"{_ffn(layer)}weight"] = _random_rows(recipe, mix, f"{_ffn(layer)}weight", width)
        if mix.router == "mlp":
            name = f"{_ffn(layer)}hidden.weight"
            hidden_RD = _normal(recipe, name, (width, mix.hidden_size), std=mix.hidden_size**-0.5)
            shared[name] = numpy_tensors.write(blobs, hidden_RD, dtype="BF16")
    return Routers(rows=rows, shared=shared)


def _attention_rows(
    recipe: Recipe, mix: Architecture, ffn_rows: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Gates of attention experts: drawn as the papers' are; else the FFN router's where both read
    the same normed input, and zero, an even mixture, where they do not."""
    if mix.attention == "average":
        return {}
    rows: dict[str, Floats] = {}
    for layer in range(mix.num_hidden_layers):
        name = f"model.layers.{layer}.self_attn.gate.weight"
        if recipe.router_init == "random":
            rows[name] = _random_rows(recipe, mix, name, mix.hidden_size)
        elif mix.parallel_block:
            rows[name] = ffn_rows[f"{_ffn(layer)}weight"]
        else:
            rows[name] = np.zeros((mix.num_experts, mix.hidden_size), np.float32)
    return rows


def _random_rows(recipe: Recipe, mix: Architecture, name: str, width: int) -> Floats:
    return np.stack(
        [
            _normal(recipe, f"{name} of {expert}", (width,), std=INITIAL_STD)
            for expert in mix.expert_names
        ]
    )


def _normal(recipe: Recipe, what: str, shape: tuple[int, ...], *, std: float) -> Floats:
    """Drawn for `what` alone: the order of drawing does not matter."""
    digest = hashlib.sha256(f"{recipe.seed} {what}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return random.standard_normal(shape, np.float32) * np.float32(std)


def _by_name(rows: Sequence[Floats], mix: Architecture) -> dict[str, Floats]:
    """Rows [n, D] of every block in their order, under the names they have in a mix."""
    return {f"{_ffn(layer)}weight": _with_seed(own, mix) for layer, own in enumerate(rows)}


def _with_seed(rows: Floats, mix: Architecture) -> Floats:
    """Zeros for a routed seed, behind the experts on the last axis but one."""
    missing = mix.num_experts - rows.shape[-2]
    return np.pad(rows, [(0, 0)] * (rows.ndim - 2) + [(0, missing), (0, 0)])


def _ffn(layer: int) -> str:
    return f"model.layers.{layer}.mlp.gate."
