"""A client of the service, and a family whose seed is ready."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.catalog import families
from registry.database import db
from service.client.client import Client
from tests import tiny


@pytest.fixture
def client(address: str, key: str) -> Iterator[Client]:
    with Client(address, key=key) as client:
        yield client


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "seed")


@pytest.fixture
def family(client: Client, seed: Path) -> str:
    """Register the family `tiny`, as if a worker had found its seed sound."""
    return add_family(client, seed)


def add_family(client: Client, seed: Path) -> str:
    """Register a seed as the family `tiny`, and have it ready."""
    family = client.register_family(seed, name="tiny", license="Apache-2.0")
    with db.transaction() as session:
        row = families.find(session, "tiny")
        families.mark_ready(session, row.id, seed_digest=family.seed_digest)
    return family.name
