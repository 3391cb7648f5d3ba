"""Waits of the client end: with what is ready, with a reason, or because nothing goes on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assembler.tables import Worker
from registry.catalog import experts, families, projections
from registry.catalog.documents import Document, serialize
from registry.database import db
from registry.database.tables import ProjectionState, VersionState
from registry.errors import Conflict, NotFound, StepFailed, Unavailable
from service.client import registrations
from service.client.client import Client
from service.schemas.experts import VersionBody
from service.schemas.families import FamilyBody, ProjectionBody
from tests import tiny

REASON = "the machine is short of memory"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(registrations, name, 0.02)


@pytest.fixture
def client(address: str, key: str) -> Iterator[Client]:
    with Client(address, key=key) as client:
        yield client


@pytest.fixture
def worker(database: str) -> None:
    """Add a worker that has just renewed its lease, and does nothing."""
    with db.transaction() as session:
        session.add(Worker(executor_id="one"))


@pytest.fixture
def family(client: Client, tmp_path: Path) -> FamilyBody:
    """Register a seed that nobody has checked yet."""
    seed = tiny.write_checkpoint(tmp_path / "seed")
    return client.register_family(seed, name="tiny", license="Apache-2.0")


@pytest.fixture
def version(client: Client, family: FamilyBody, tmp_path: Path) -> VersionBody:
    """Register an expert of a sound family; nobody has checked it yet."""
    with db.transaction() as session:
        row = families.find(session, "tiny")
        families.mark_ready(session, row.id, seed_digest=family.seed_digest)
    folder = tiny.write_checkpoint(tmp_path / "expert", expert=1)
    return client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")


@pytest.fixture
def projection(client: Client, version: VersionBody, tmp_path: Path) -> ProjectionBody:
    documents = tmp_path / "public.jsonl"
    content = [Document(domain, "a text", "train", domain) for domain in ("law", "code")]
    documents.write_bytes(serialize(content))
    requested = client.request_projection("tiny", documents=documents)
    assert client.request_projection("tiny", documents=documents) == requested
    return requested


def after_a_first_look(work: Callable[[], None]) -> Callable[[str], None]:
    """Return a listener of a wait that does the work, elsewhere, once the wait has begun."""
    seen: list[str] = []

    def listen(sentence: str) -> None:
        seen.append(sentence)
        if len(seen) == 1:
            threading.Thread(target=work).start()

    return listen


def test_a_wait_ends_when_a_version_is_ready(
    client: Client, worker: None, version: VersionBody
) -> None:
    assert version.state is VersionState.CHECKING

    def work() -> None:
        with db.transaction() as session:
            experts.mark_checked(session, 1)
            experts.mark_embedded(session, 1)

    ready = client.wait_for_embedding(version, on_wait=after_a_first_look(work))
    assert (ready.state, ready.ref) == (VersionState.READY, "law@1")


def test_a_wait_ends_with_the_reason_of_a_failure(
    client: Client, worker: None, version: VersionBody
) -> None:
    def work() -> None:
        with db.transaction() as session:
            experts.mark_failed(session, 1, error=REASON)

    with pytest.raises(StepFailed, match=f"law@1 is failed: {REASON}"):
        client.wait_for_embedding(version, on_wait=after_a_first_look(work))
    retried = client.retry_version(version)
    assert (retried.state, retried.error) == (VersionState.CHECKING, None)


def test_a_wait_ends_when_no_worker_runs(
    client: Client, version: VersionBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "GONE_SECONDS", 0.1)
    with pytest.raises(Unavailable, match=r"law@1 is checking, and no worker is running"):
        client.wait_for_embedding(version)


def test_a_wait_ends_when_its_time_is_over(
    client: Client, worker: None, version: VersionBody
) -> None:
    with db.transaction() as session:
        experts.note(session, 1, error="the store is away")
    with pytest.raises(Unavailable, match=r"law@1 is still checking .*\(the store is away\)"):
        client.wait_for_embedding(version, seconds=0.1)


def test_a_wait_for_a_family_ends_either_way(
    client: Client, worker: None, family: FamilyBody
) -> None:
    def refuse() -> None:
        with db.transaction() as session:
            families.mark_failed(session, 1, error="tokenizer.json is no tokenizer")

    def accept() -> None:
        with db.transaction() as session:
            families.mark_ready(session, 1, seed_digest=family.seed_digest)

    with pytest.raises(StepFailed, match="family 'tiny' is failed: tokenizer"):
        client.wait_for_family(family, on_wait=after_a_first_look(refuse))
    retried = client.retry_family("tiny")
    ready = client.wait_for_family(retried, on_wait=after_a_first_look(accept))
    assert ready.state is VersionState.READY
    assert client.family("tiny") == ready


def test_a_wait_for_a_projection_ends_either_way(
    client: Client, worker: None, projection: ProjectionBody
) -> None:
    def fail() -> None:
        with db.transaction() as session:
            projections.mark_failed(session, projections.get(session, 1), error=REASON)

    def succeed() -> None:
        with db.transaction() as session:
            row = projections.get(session, 1)
            projections.mark_ready(session, row, manifest_digest="m" * 64, metrics={})

    with pytest.raises(StepFailed, match=f"projection tiny@1 is failed: {REASON}"):
        client.wait_for_projection(projection, on_wait=after_a_first_look(fail))
    retried = client.retry_projection(projection)
    ready = client.wait_for_projection(retried, on_wait=after_a_first_look(succeed))
    assert ready.state is ProjectionState.READY


def test_a_family_is_deleted(client: Client, version: VersionBody) -> None:
    with pytest.raises(Conflict, match="is used by law"):
        client.delete_family("tiny")
    with db.transaction() as session:
        experts.mark_failed(session, 1, error=REASON)
    client.delete_family("tiny")
    with pytest.raises(NotFound):
        client.family("tiny")
