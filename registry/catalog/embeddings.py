"""Domain embeddings of expert versions: a vector of a text encoder, and router inputs.

The vector is the mean over the version's documents. The router inputs are taken in the version's
own network. Vectors of different embedders are not comparable, so every query names its embedder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session, contains_eager

from registry.database.tables import DomainEmbedding, Expert, ExpertVersion, Family, VersionState
from registry.errors import NotFound


@dataclass(frozen=True, kw_only=True)
class Embedders:
    """Digests of the two embedders: `encoder` of the text encoder, `states` of the router inputs.

    `states` covers the seed of the family and the way its router inputs are taken.
    """

    encoder: str
    states: str


@dataclass(frozen=True)
class Neighbor:
    """An expert version and the cosine similarity of its domain; 1 is the same direction."""

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
    moments_digest: str | None,
    embedders: Embedders,
) -> None:
    """Store the vector [M], the router inputs and the input moments of a version.

    The documents of a version never change, so repeating this stores the same values.
    """
    values = {
        "vector": list(map(float, vector)),
        "embedder": embedder,
        "num_documents": num_documents,
        "states_digest": states_digest,
        "states_embedder_digest": embedders.states,
        "num_tokens": num_tokens,
        "moments_digest": moments_digest,
    }
    key = {"expert_version_id": version.id, "embedder_digest": embedders.encoder}
    session.execute(
        insert(DomainEmbedding)
        .values(**key, **values)
        .on_conflict_do_update(index_elements=list(key), set_=values)
    )


def made_by(embedders: Embedders) -> ColumnElement[bool]:
    """Return the SQL condition that an embedding was made by these embedders."""
    return and_(
        DomainEmbedding.embedder_digest == embedders.encoder,
        DomainEmbedding.states_embedder_digest == embedders.states,
    )


def is_made_by(embedding: DomainEmbedding, embedders: Embedders) -> bool:
    """Tell whether these embedders made an embedding; see `made_by` for the same in SQL."""
    made = (embedding.embedder_digest, embedding.states_embedder_digest)
    return made == (embedders.encoder, embedders.states)


def find(session: Session, version: ExpertVersion, *, embedders: Embedders) -> DomainEmbedding:
    """Return the embedding of a version by these embedders. Raises NotFound if there is none."""
    embedding = session.scalar(
        select(DomainEmbedding).where(
            DomainEmbedding.expert_version_id == version.id, made_by(embedders)
        )
    )
    if embedding is None:
        raise NotFound(f"version {version.number} of the expert has no domain embedding yet")
    return embedding


def find_all(session: Session, version: ExpertVersion) -> Sequence[DomainEmbedding]:
    """Return the embeddings of a version by all embedders, newest first."""
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
    """Return the ids of the versions that the current embedders have embedded, in one query.

    `embedders_of` returns the embedders for the digest of a family's seed.
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
    """Return the newest versions of the experts of a family, sorted by distance to `vector` [M].

    Only ready versions that `embedder_digest` has embedded are returned, at most `limit`.
    """
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
    rows = session.execute(
        select(ExpertVersion, distance)
        .join(ExpertVersion.expert)
        .join(Expert.family)
        .join(DomainEmbedding, DomainEmbedding.expert_version_id == ExpertVersion.id)
        .options(contains_eager(ExpertVersion.expert).contains_eager(Expert.family))
        .where(ExpertVersion.id.in_(newest), DomainEmbedding.embedder_digest == embedder_digest)
        .order_by(distance, Expert.name)
        .limit(limit)
    )
    return [Neighbor(version, 1.0 - cosine_distance) for version, cosine_distance in rows]
