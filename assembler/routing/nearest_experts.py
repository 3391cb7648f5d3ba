"""Find the experts whose domains are nearest to a text."""

from sqlalchemy.orm import Session

from assembler.routing.embedder import embedder_digest
from assembler.routing.numpy_encoder import query_encoder
from registry.catalog import embeddings, families
from registry.catalog.embeddings import Neighbor


def nearest(session: Session, text: str, *, family: str, limit: int) -> list[Neighbor]:
    """Return the experts of a family by the distance of their domains to `text`, nearest first.

    Only the beginning of a long text counts. Raises NotFound and Conflict for the family.
    """
    families.find_ready(session, family)
    return embeddings.nearest(
        session,
        query_encoder().embed(text),
        embedder_digest=embedder_digest(),
        family=family,
        limit=limit,
    )
