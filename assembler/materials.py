"""What a pinned recipe stands for: the checkpoints, documents, vectors and projection it names."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from assembler.embedder import embedder_digest
from assembler.recipe import Recipe
from registry import documents, embeddings, experts, families, manifests, projections
from registry.blobs import BlobStore
from registry.documents import Document
from registry.manifests import Manifest
from registry.names import parse_ref
from registry.tables import ExpertVersion


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Digests and vectors, read in one short transaction; lists are in the recipe's order."""

    recipe: Recipe
    seed_digest: str
    expert_digests: tuple[str, ...]
    documents_digests: tuple[str, ...]
    vectors: tuple[list[float], ...]
    projection_digest: str

    @property
    def domains(self) -> tuple[str, ...]:
        """The experts' names, which are also the names of their domains."""
        return tuple(ref.partition("@")[0] for ref in self.recipe.experts)

    def seed(self, blobs: BlobStore) -> Manifest:
        return manifests.load(blobs, self.seed_digest)

    def experts(self, blobs: BlobStore) -> list[Manifest]:
        return [manifests.load(blobs, digest) for digest in self.expert_digests]

    def projection(self, blobs: BlobStore) -> Manifest:
        return manifests.load(blobs, self.projection_digest)

    def documents(self, blobs: BlobStore) -> list[list[Document]]:
        return [documents.parse(blobs.read(digest)) for digest in self.documents_digests]


def gather(session: Session, recipe: Recipe) -> Materials:
    """Look up everything that the recipe pins. Raises NotFound and Conflict."""
    versions = [_version(session, ref) for ref in recipe.experts]
    projection = projections.pin(session, recipe.projection)
    assert projection.manifest_digest is not None
    digest = embedder_digest()
    return Materials(
        recipe=recipe,
        seed_digest=families.find(session, recipe.family).seed_digest,
        expert_digests=tuple(version.manifest_digest for version in versions),
        documents_digests=tuple(version.documents_digest for version in versions),
        vectors=tuple(
            embeddings.vector_of(session, version, embedder_digest=digest) for version in versions
        ),
        projection_digest=projection.manifest_digest,
    )


def _version(session: Session, ref: str) -> ExpertVersion:
    # Not `pin`: a version that was retired since stays good for mixes that have it already.
    name, number = parse_ref(ref)
    assert number is not None, "recipes are pinned"
    return experts.find_version(session, expert=name, number=number)
