"""Ids of the jobs of registrations. Each retry has an id of its own, and so a count of its own."""

from assembler.routing.embedder import CAPTURE, embedder_digest
from registry.database.tables import ExpertVersion, Family, Projection


def of_family(family: Family) -> str:
    """Return the id of the check of a seed."""
    return _id(f"check-family-{family.id}", family.num_retries)


def of_import(version: ExpertVersion) -> str:
    """Return the id of the import of an expert's version."""
    return _id(f"import-expert-{version.id}", version.num_retries)


def of_check(version: ExpertVersion) -> str:
    """Return the id of the check of an expert's version."""
    return _id(f"check-expert-{version.id}", version.num_retries)


def of_embedding(version: ExpertVersion) -> str:
    """Return the id of the embedding of an expert's version by today's embedders."""
    return _id(f"embed-{version.id}-{embedder_digest()[:12]}-{CAPTURE}", version.num_retries)


def of_measurement(version_id: int) -> str:
    """Return the id of the measurement of an expert's version, which is made once."""
    return f"measure-expert-{version_id}"


def of_projection(projection: Projection) -> str:
    """Return the id of the training of a projection."""
    return _id(f"projection-{projection.id}", projection.num_retries)


def _id(name: str, num_retries: int) -> str:
    return f"{name}-retry-{num_retries}" if num_retries else name
