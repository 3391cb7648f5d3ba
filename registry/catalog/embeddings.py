"""Domain embeddings: what a version's documents are about, as one vector of a text encoder and as
the mean router inputs of the version's own network.

Vectors of different embedders live in different spaces; every question names the embedder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, contains_eager

from registry.database.tables import DomainEmbedding, Expert, ExpertVersion, Family, VersionState
from registry.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Embedders:
    """Digests of what reads a version's documents: the text encoder, and the seed of its family
    with the way its router inputs are taken."""

    encoder: str
    states: str


@dataclass(frozen=True)
class Neighbor:
    """An expert version whose domain is near, and how near: cosine, 1 is the same direction."""

    version: ExpertVersion
    similarity: float


def store(
    session: Session,
    version: ExpertVersion,
    *,
    vector: Sequence[float],
    embedder: str,
    num_documents: int,
    states_digest: str,
    num_tokens: int,
    embedders: Embedders,
) -> None:
    """Keep both; a version's documents never change, so a repeat overwrites with the same."""
    values = {
        "vector": list(map(float, vector)),
        "embedder": embedder,
        "num_documents": num_documents,
        "states_digest": states_digest,
        "states_embedder_digest": embedders.states,
        "num_tokens": num_tokens,
    }
    key = {"expert_version_id": version.id, "embedder_digest": embedders.encoder}
    session.execute(
        insert(DomainEmbedding)
        .values(**key, **values)
        .on_conflict_do_update(index_elements=list(key), set_=values)
    )


def find(session: Session, version: ExpertVersion, *, embedders: Embedders) -> DomainEmbedding:
    """The one that these embedders made. Raises NotFound when it was not taken yet."""
    found = session.scalar(
        select(DomainEmbedding).where(
            DomainEmbedding.expert_version_id == version.id,
            DomainEmbedding.embedder_digest == embedders.encoder,
            DomainEmbedding.states_embedder_digest == embedders.states,
        )
    )
    if found is None:
        raise NotFound(f"version {version.number} of the expert has no domain embedding yet")
    return found


def find_all(session: Session, version: ExpertVersion) -> Sequence[DomainEmbedding]:
    """Those of all embedders, newest first."""
    return session.scalars(
        select(DomainEmbedding)
        .where(DomainEmbedding.expert_version_id == version.id)
        .order_by(DomainEmbedding.id.desc())
    ).all()


def find_embedded(
    session: Session,
    versions: Sequence[ExpertVersion],
    *,
    embedders_of: Callable[[str], Embedders],
) -> set[int]:
    """Return the ids of the versions that today's embedders have embedded, in one query.

    `embedders_of` gives the embedders of a family by the digest of its seed.
    """
    ids = [version.id for version in versions]
    rows = session.execute(
        select(
            DomainEmbedding.expert_version_id,
            DomainEmbedding.embedder_digest,
            DomainEmbedding.states_embedder_digest,
        ).where(DomainEmbedding.expert_version_id.in_(ids))
    )
    existing = {tuple(row) for row in rows}
    current = [embedders_of(version.expert.family.seed_digest) for version in versions]
    return {
        version.id
        for version, embedders in zip(versions, current, strict=True)
        if (version.id, embedders.encoder, embedders.states) in existing
    }


def nearest(
    session: Session,
    vector: Sequence[float],
    *,
    embedder_digest: str,
    family: str,
    limit: int,
) -> list[Neighbor]:
    """The experts of a family nearest to `vector` [M], nearest first, newest versions."""
    newest = (
        select(ExpertVersion.id)
        .join(ExpertVersion.expert)
        .join(Expert.family)
        .join(DomainEmbedding, DomainEmbedding.expert_version_id == ExpertVersion.id)
        .where(
            Family.name == family,
            ExpertVersion.state == VersionState.READY,
            DomainEmbedding.embedder_digest == embedder_digest,
        )
        .ext(distinct_on(ExpertVersion.expert_id))
        .order_by(ExpertVersion.expert_id, ExpertVersion.number.desc())
    )
    distance = DomainEmbedding.vector.cosine_distance(list(map(float, vector)))
    found = session.execute(
        select(ExpertVersion, distance)
        .join(ExpertVersion.expert)
        .join(Expert.family)
        .join(DomainEmbedding, DomainEmbedding.expert_version_id == ExpertVersion.id)
        .options(contains_eager(ExpertVersion.expert).contains_eager(Expert.family))
        .where(ExpertVersion.id.in_(newest), DomainEmbedding.embedder_digest == embedder_digest)
        .order_by(distance, Expert.name)
        .limit(limit)
    )
    return [Neighbor(version, 1.0 - far) for version, far in found]
