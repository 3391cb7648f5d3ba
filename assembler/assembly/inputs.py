"""The inputs of a mix: checkpoints, documents, vectors and the projection of a pinned recipe.

Inputs are named by digest, so the same inputs make the same mix wherever their blobs are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.assembly.extend import Base
from assembler.assembly.regression import Member
from assembler.recipes.recipe import Recipe
from assembler.routing.embedder import embedders, outdated, states_shape
from assembler.routing.input_moments import InputMoments
from assembler.tables import Mix, MixVersion
from registry.blobs.blobs import BlobStore
from registry.catalog import documents, embeddings, experts, families, projections
from registry.catalog.documents import Document
from registry.catalog.embeddings import Embedders
from registry.checkpoints import manifests, numpy_tensors
from registry.checkpoints.manifests import Dtype, Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from registry.database.tables import DomainEmbedding, ExpertVersion
from registry.errors import Incompatible
from registry.names import parse_ref

STATES_DTYPE: Dtype = "F32"


@dataclass(frozen=True, kw_only=True)
class MixInputs:
    """Digests and vectors, read in one short transaction; lists are in the recipe's order.

    `vectors` are the text encoder's vectors, `states_digests` name router inputs. `base_experts`
    are the pinned experts of the base, each with the digest of its dense checkpoint. An expert
    whose documents are forgotten has None instead of their digest. `moments_digests` name the input
    moments of the experts, None of an expert that has none, and `base_moments_digests` those of the
    base's experts; both are empty where the recipe uses none. `private` are the positions of
    experts whose documents no report quotes.
    """

    recipe: Recipe
    seed_digest: str
    expert_digests: tuple[str, ...]
    documents_digests: tuple[str | None, ...]
    vectors: tuple[list[float], ...]
    states_digests: tuple[str, ...]
    projection_digest: str | None
    moments_digests: tuple[str | None, ...] = ()
    base_digest: str | None = None
    base_experts: tuple[tuple[str, str], ...] = ()
    base_moments_digests: tuple[str | None, ...] = ()
    private: tuple[int, ...] = ()

    @property
    def has_moments(self) -> bool:
        """Whether every expert has the input moments that an average by regression needs."""
        return bool(self.moments_digests) and None not in self.moments_digests

    @property
    def new_experts(self) -> frozenset[int]:
        """Positions of the experts that the base does not have; none without a base."""
        if self.base_digest is None:
            return frozenset()
        known = dict(self.base_experts)
        return frozenset(i for i, ref in enumerate(self.recipe.experts) if ref not in known)

    def parts(self, blobs: BlobStore) -> "MixParts":
        """Return what the digests stand for; each part is read once, when it is first needed."""
        return MixParts(self, blobs)


@dataclass(frozen=True)
class MixParts:
    """What the digests of a mix's inputs stand for. Each part raises NotFound if it is lost."""

    inputs: MixInputs
    blobs: BlobStore

    @cached_property
    def seed(self) -> Manifest:
        return manifests.load(self.blobs, self.inputs.seed_digest)

    @cached_property
    def experts(self) -> tuple[Manifest, ...]:
        """The experts' dense checkpoints, in the recipe's order."""
        return tuple(manifests.load(self.blobs, digest) for digest in self.inputs.expert_digests)

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The experts' dense checkpoints with the moments of their inputs."""
        return _members(self.experts, self.inputs.moments_digests, self.blobs)

    @cached_property
    def projection(self) -> Manifest | None:
        digest = self.inputs.projection_digest
        return None if digest is None else manifests.load(self.blobs, digest)

    @cached_property
    def base(self) -> Base | None:
        inputs, blobs = self.inputs, self.blobs
        if inputs.base_digest is None:
            return None
        refs = [ref for ref, _ in inputs.base_experts]
        checkpoints = [manifests.load(blobs, digest) for _, digest in inputs.base_experts]
        members = _members(checkpoints, inputs.base_moments_digests, blobs)
        return Base(
            mix=manifests.load(blobs, inputs.base_digest),
            experts=dict(zip(refs, members, strict=True)),
        )

    @cached_property
    def states(self) -> Floats:
        """Router inputs of each expert [n, L, R, D]: their mean, and their principal directions."""
        dense = self.seed.architecture
        shape = states_shape(dense.num_hidden_layers, dense.hidden_size)
        entries = [
            TensorEntry(STATES_DTYPE, shape, digest) for digest in self.inputs.states_digests
        ]
        return np.stack([numpy_tensors.read(self.blobs, entry) for entry in entries])

    @cached_property
    def documents(self) -> list[list[Document]]:
        """Each expert's documents; none of an expert that keeps none."""
        return [
            [] if digest is None else documents.parse(self.blobs.read(digest))
            for digest in self.inputs.documents_digests
        ]


def gather(session: Session, recipe: Recipe) -> MixInputs:
    """Look up everything that the recipe pins.

    Raises NotFound and Conflict, and Incompatible for a projection of other domain embeddings.
    """
    versions = [_version(session, ref) for ref in recipe.experts]
    seed_digest = families.find(session, recipe.family).seed_digest
    current = embedders(seed_digest)
    embedded = [embeddings.find(session, version, embedders=current) for version in versions]
    uses_moments = recipe.averages_by_regression
    base = None if recipe.base is None else _base(session, recipe.base)
    return MixInputs(
        recipe=recipe,
        seed_digest=seed_digest,
        expert_digests=tuple(experts.checkpoint_digest(version) for version in versions),
        documents_digests=tuple(version.kept_documents for version in versions),
        vectors=tuple(own.vector for own in embedded),
        states_digests=tuple(_states_digest(own) for own in embedded),
        projection_digest=_projection_digest(session, recipe),
        moments_digests=tuple(own.moments_digest for own in embedded) if uses_moments else (),
        base_digest=None if base is None else base.trained_digest,
        base_experts=() if base is None else _experts_of(session, base),
        base_moments_digests=_moments_of(session, base, current)
        if base is not None and uses_moments
        else (),
        private=tuple(i for i, each in enumerate(versions) if each.private_documents),
    )


def _states_digest(embedded: DomainEmbedding) -> str:
    assert embedded.states_digest is not None, "it was found by them"
    return embedded.states_digest


def _projection_digest(session: Session, recipe: Recipe) -> str | None:
    if recipe.projection is None:
        return None
    projection = projections.pin(session, recipe.projection)
    if detail := outdated(projection):
        raise Incompatible(detail)
    return projection.manifest_digest


def _base(session: Session, ref: str) -> MixVersion:
    name, number = parse_ref(ref)
    query = select(MixVersion).join(MixVersion.mix)
    return session.scalars(query.where(Mix.name == name, MixVersion.number == number)).one()


def _experts_of(session: Session, base: MixVersion) -> tuple[tuple[str, str], ...]:
    refs = Recipe.model_validate(base.recipe).experts
    return tuple((ref, experts.checkpoint_digest(_version(session, ref))) for ref in refs)


def _moments_of(session: Session, base: MixVersion, current: Embedders) -> tuple[str | None, ...]:
    refs = Recipe.model_validate(base.recipe).experts
    versions = (_version(session, ref) for ref in refs)
    # An expert that leaves the mix need not be embedded.
    found = (embeddings.find_all(session, version) for version in versions)
    return tuple(
        next((row.moments_digest for row in rows if embeddings.is_made_by(row, current)), None)
        for rows in found
    )


def _members(
    checkpoints: Sequence[Manifest], moments_digests: Sequence[str | None], blobs: BlobStore
) -> tuple[Member, ...]:
    digests = moments_digests or [None] * len(checkpoints)
    return tuple(
        Member(
            checkpoint=checkpoint,
            moments=None if digest is None else InputMoments.of(blobs, digest),
        )
        for checkpoint, digest in zip(checkpoints, digests, strict=True)
    )


def _version(session: Session, ref: str) -> ExpertVersion:
    # Not `pin`: a version that was retired since stays good for mixes that have it already.
    name, number = parse_ref(ref)
    assert number is not None, "recipes are pinned"
    return experts.find_version(session, expert=name, number=number)
