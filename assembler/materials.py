"""What a pinned recipe stands for: the checkpoints, documents, vectors and projection it names.

Digests say all of it, so that the same materials make the same mix wherever their blobs are.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.embedder import embedder_digest
from assembler.extension import Base
from assembler.recipe import Recipe
from assembler.tables import Mix, MixVersion
from registry import documents, embeddings, experts, families, manifests, projections
from registry.blobs import BlobStore
from registry.documents import Document
from registry.manifests import Manifest
from registry.names import parse_ref
from registry.tables import ExpertVersion


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Digests and vectors, read in one short transaction; lists are in the recipe's order.

    `base_experts` are the base's own, pinned, with the digests of their dense checkpoints.
    """

    recipe: Recipe
    seed_digest: str
    expert_digests: tuple[str, ...]
    documents_digests: tuple[str, ...]
    vectors: tuple[list[float], ...]
    projection_digest: str | None
    base_digest: str | None = None
    base_experts: tuple[tuple[str, str], ...] = ()

    @property
    def new_experts(self) -> frozenset[int]:
        """Positions of the experts that the base does not have; none without a base."""
        if self.base_digest is None:
            return frozenset()
        known = dict(self.base_experts)
        return frozenset(i for i, ref in enumerate(self.recipe.experts) if ref not in known)

    def seed(self, blobs: BlobStore) -> Manifest:
        return manifests.load(blobs, self.seed_digest)

    def experts(self, blobs: BlobStore) -> list[Manifest]:
        return [manifests.load(blobs, digest) for digest in self.expert_digests]

    def projection(self, blobs: BlobStore) -> Manifest | None:
        digest = self.projection_digest
        return None if digest is None else manifests.load(blobs, digest)

    def base(self, blobs: BlobStore) -> Base | None:
        if self.base_digest is None:
            return None
        return Base(
            mix=manifests.load(blobs, self.base_digest),
            experts={ref: manifests.load(blobs, digest) for ref, digest in self.base_experts},
        )

    def documents(self, blobs: BlobStore) -> list[list[Document]]:
        return [documents.parse(blobs.read(digest)) for digest in self.documents_digests]


def gather(session: Session, recipe: Recipe) -> Materials:
    """Look up everything that the recipe pins. Raises NotFound and Conflict."""
    versions = [_version(session, ref) for ref in recipe.experts]
    digest = embedder_digest()
    base = None if recipe.base is None else _base(session, recipe.base)
    return Materials(
        recipe=recipe,
        seed_digest=families.find(session, recipe.family).seed_digest,
        expert_digests=tuple(version.manifest_digest for version in versions),
        documents_digests=tuple(version.documents_digest for version in versions),
        vectors=tuple(
            embeddings.vector_of(session, version, embedder_digest=digest) for version in versions
        ),
        projection_digest=_projection_digest(session, recipe),
        base_digest=None if base is None else base.finetuned_digest or base.assembled_digest,
        base_experts=() if base is None else _experts_of(session, base),
    )


def _projection_digest(session: Session, recipe: Recipe) -> str | None:
    if recipe.projection is None:
        return None
    return projections.pin(session, recipe.projection).manifest_digest


def _base(session: Session, ref: str) -> MixVersion:
    name, number = parse_ref(ref)
    query = select(MixVersion).join(MixVersion.mix)
    return session.scalars(query.where(Mix.name == name, MixVersion.number == number)).one()


def _experts_of(session: Session, base: MixVersion) -> tuple[tuple[str, str], ...]:
    refs = Recipe.model_validate(base.recipe).experts
    return tuple((ref, _version(session, ref).manifest_digest) for ref in refs)


def _version(session: Session, ref: str) -> ExpertVersion:
    # Not `pin`: a version that was retired since stays good for mixes that have it already.
    name, number = parse_ref(ref)
    assert number is not None, "recipes are pinned"
    return experts.find_version(session, expert=name, number=number)
