"""Domain embeddings are stored once for each embedder and searched by cosine similarity."""

from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from assembler.routing.embedder import states_embedder_digest
from registry.blobs.blobs import LocalBlobs
from registry.catalog import embeddings
from registry.catalog.embeddings import Embedders
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import NotFound
from tests import factories
from tests.factories import EMBEDDER_DIGEST


@pytest.fixture
def versions(session: Session, blobs: LocalBlobs) -> list[ExpertVersion]:
    """Store four experts of one family; their vectors lie farther and farther from (1, 0)."""
    family = factories.make_family(session, blobs)
    made = []
    for name, vector in [("a", (2, 0)), ("b", (1, 1)), ("c", (0, 3)), ("d", (-1, 0))]:
        expert = factories.make_expert(session, family, name=name)
        made.append(factories.make_version(session, expert, blobs))
        factories.embed(session, made[-1], vector)
    return made


def nearest(session: Session, *, limit: int = 10) -> list[tuple[str, int, float]]:
    found = embeddings.nearest(
        session, [1.0, 0.0], embedder_digest=EMBEDDER_DIGEST, family="tiny", limit=limit
    )
    return [(n.version.expert.name, n.version.number, round(n.similarity, 3)) for n in found]


def test_the_nearest_expert_comes_first(session: Session, versions: list[ExpertVersion]) -> None:
    assert nearest(session) == [("a", 1, 1.0), ("b", 1, 0.707), ("c", 1, 0.0), ("d", 1, -1.0)]
    assert len(nearest(session, limit=2)) == 2


def test_only_the_newest_version_counts(
    session: Session, versions: list[ExpertVersion], blobs: LocalBlobs
) -> None:
    newer = factories.make_version(session, versions[0].expert, blobs, number=2)
    factories.embed(session, newer, (0, 1))
    retired = factories.make_version(
        session, versions[0].expert, blobs, number=3, state=VersionState.RETIRED
    )
    factories.embed(session, retired, (1, 0))
    assert [row for row in nearest(session) if row[0] == "a"] == [("a", 2, 0.0)]


def test_only_vectors_of_one_embedder_are_compared(
    session: Session, versions: list[ExpertVersion]
) -> None:
    factories.embed(session, versions[3], (1, 0, 0), embedder_digest="other")
    found = embeddings.nearest(session, [1, 0, 0], embedder_digest="other", family="tiny", limit=10)
    assert [neighbor.version for neighbor in found] == [versions[3]]
    assert len(nearest(session)) == 4


def test_experts_of_other_families_are_not_returned(
    session: Session, versions: list[ExpertVersion], blobs: LocalBlobs
) -> None:
    family = factories.make_family(session, blobs, name="other")
    expert = factories.make_expert(session, family, name="z")
    factories.embed(session, factories.make_version(session, expert, blobs), (1, 0))
    assert len(nearest(session)) == 4


def test_an_embedding_is_stored_with_its_source(
    session: Session, versions: list[ExpertVersion]
) -> None:
    found = embeddings.find(session, versions[1], embedders=current(versions[1]))
    assert (list(found.vector), found.num_documents, found.num_tokens) == ([1.0, 1.0], 6, 100)
    factories.embed(session, versions[1], (1, 1))


@pytest.mark.parametrize("other", ["encoder", "states"])
def test_an_embedding_by_other_embedders_is_not_found(
    session: Session, versions: list[ExpertVersion], other: str
) -> None:
    """The encoder differs, or the seed or the way of the router inputs."""
    embedders = replace(current(versions[0]), **{other: "other"})
    with pytest.raises(NotFound, match="no domain embedding yet"):
        embeddings.find(session, versions[0], embedders=embedders)


def test_embedded_versions_are_found_in_one_call(
    session: Session, versions: list[ExpertVersion], blobs: LocalBlobs
) -> None:
    newer = factories.make_version(session, versions[0].expert, blobs, number=2)
    found = embeddings.find_embedded(session, [*versions, newer], embedders_of=of_seed)
    assert found == {version.id for version in versions}
    others = embeddings.find_embedded(
        session, versions, embedders_of=lambda seed: Embedders(encoder="other", states=seed)
    )
    assert others == set()


def current(version: ExpertVersion) -> Embedders:
    return of_seed(version.expert.family.seed_digest)


def of_seed(digest: str) -> Embedders:
    return Embedders(encoder=EMBEDDER_DIGEST, states=states_embedder_digest(digest))
