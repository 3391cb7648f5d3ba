"""Registrations end: ready, or failed with a reason; a retry goes on. Workers and kills are real.

Covers: registration_steps.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest

from assembler.jobs import job_ids
from assembler.jobs.registration_steps import MEASURE
from assembler.mixes import job_events, worker_presence
from assembler.routing.embedder import states_embedder_digest
from registry.blobs import blob_stores
from registry.blobs.blobs import put_bytes
from registry.catalog import embeddings, experts, families, kept_documents, projections
from registry.checkpoints import manifests
from registry.database import db
from registry.database.tables import (
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)
from registry.settings import settings
from tests import tiny
from tests.assembler import rows
from tests.assembler.test_tokenizer_file import with_token
from tests.assembler.workers import forget_jobs, processes_of_home, wait_for, worker

pytestmark = pytest.mark.slow

BROKEN_TEMPLATE = b"{% for message in messages %}"


@pytest.fixture(autouse=True)
def clean(database: str) -> Iterator[None]:
    """Delete the jobs of earlier tests, and check that this test leaves no process."""
    forget_jobs()
    yield
    wait_for(lambda: not processes_of_home(), "the end of all processes")


def register_family(**files: bytes) -> Family:
    """Add the seed as its upload leaves it, with other files; `__` stands for a dot."""
    blobs = blob_stores.store()
    with db.transaction() as session:
        family = rows.add_family(session, blobs)
        seed = tiny.store_manifest(blobs)
        digests = {name.replace("__", "."): put_bytes(blobs, data) for name, data in files.items()}
        family.seed_digest = manifests.store(blobs, replace(seed, files=seed.files | digests))
        family.state = VersionState.CHECKING
        return family


def register_expert(**files: bytes) -> ExpertVersion:
    """Add an expert as its upload leaves it, with other files."""
    blobs = blob_stores.store()
    with db.transaction() as session:
        family = rows.add_family(session, blobs)
        version = rows.add_expert(session, blobs, family, number=1, embedded=False)
        manifest = tiny.store_manifest(blobs, expert=1)
        digests = {name.replace("__", "."): put_bytes(blobs, data) for name, data in files.items()}
        changed = replace(manifest, files=manifest.files | digests)
        version.manifest_digest = manifests.store(blobs, changed)
        version.state = VersionState.CHECKING
        return version


def family_now() -> Family:
    with db.transaction() as session:
        return families.find(session, "tiny")


def version_now() -> ExpertVersion:
    with db.transaction() as session:
        return experts.find_version(session, expert="expert-1", number=1)


def wait_until(look: Callable[[], Family | ExpertVersion], state: VersionState) -> None:
    wait_for(lambda: look().state is state, f"the state {state}")


def processes_of(step: str) -> list[psutil.Process]:
    """Return the running processes of a step, not their process guards."""
    found = []
    for process in processes_of_home():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue  # it has just ended
        if step in command and "-I" not in command:
            found.append(process)
    return found


def kill(step: str, *, times: int) -> None:
    """Kill the process of a step again and again."""
    killed: set[int] = set()
    while len(killed) < times:
        wait_for(lambda: {p.pid for p in processes_of(step)} - killed != set(), f"the step {step}")
        for process in processes_of(step):
            if process.pid not in killed:
                killed.add(process.pid)
                process.kill()


def test_a_registration_goes_from_checking_to_ready(database: str) -> None:
    register_expert()
    with worker():
        wait_until(version_now, VersionState.READY)
    assert version_now().ready_at is not None
    assert version_now().error is None


def test_a_ready_expert_is_measured_for_gates(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MEASURE_EXPERTS", "true")
    version = register_expert()

    def has_ended() -> bool:
        with db.transaction() as session:
            job_id = job_ids.of_measurement(version.id)
            return job_events.has_ended(session, job_id, step=MEASURE)

    with worker():
        wait_until(version_now, VersionState.READY)
        wait_for(has_ended, "the measurement")
    # Expert and seed on the expert's text; this family has no general text.
    assert len(list((settings().cache_path / "evaluations").glob("*/*"))) == 2


@pytest.mark.long
def test_a_sound_seed_becomes_ready(database: str) -> None:
    register_family()
    with worker():
        wait_until(family_now, VersionState.READY)


def test_a_seed_with_a_token_beyond_its_vocabulary_fails(database: str) -> None:
    register_family(tokenizer__json=with_token(64))
    with worker():
        wait_until(family_now, VersionState.FAILED)
    assert (family_now().error or "").startswith("tokenizer.json has 1 tokens beyond")


def test_an_expert_with_a_broken_template_fails(database: str) -> None:
    register_expert(chat_template__jinja=BROKEN_TEMPLATE)
    with worker():
        wait_until(version_now, VersionState.FAILED)
    assert (version_now().error or "").startswith("chat_template.jinja has a chat template")


def test_an_embedding_that_is_killed_fails_and_is_retried(database: str) -> None:
    register_expert()
    with worker():
        kill("embed", times=3)
        wait_until(version_now, VersionState.FAILED)
        assert "killed by signal 9" in (version_now().error or "")
        with db.transaction() as session:
            experts.retry(session, expert="expert-1", number=1)
        wait_until(version_now, VersionState.READY)
    assert version_now().error is None


@pytest.mark.long
def test_a_projection_that_is_killed_fails_and_is_retried(database: str) -> None:
    def projection() -> Projection:
        with db.transaction() as session:
            return projections.find(session, family="tiny", number=1)

    blobs = blob_stores.store()
    public = b"".join(
        b'{"id": "%d", "text": "a text of some words", "split": "train", "domain": "%d"}\n'
        % (number, number % 2)
        for number in range(8)
    )
    with db.transaction() as session:
        family = rows.add_family(session, blobs)
        projections.request(
            session,
            family="tiny",
            documents_digest=put_bytes(blobs, public),
            embedder_digest=states_embedder_digest(family.seed_digest),
            training={},
        )
    with worker():
        kill("train-projection", times=3)
        wait_for(lambda: projection().state is ProjectionState.FAILED, "the failure")
        assert "killed by signal 9" in (projection().error or "")
        with db.transaction() as session:
            projections.retry(session, family="tiny", number=1)
        wait_for(lambda: projection().state is ProjectionState.READY, "the projection")


@pytest.mark.long
def test_a_worker_is_seen_while_it_runs(database: str) -> None:
    def count() -> int:
        with db.transaction() as session:
            return worker_presence.count(session)

    assert count() == 0
    with worker() as process:
        wait_for(lambda: count() == 1, "the worker")
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: count() == 0, "the end of its lease")


@pytest.mark.slow
def test_documents_are_forgotten_once_the_domain_is_embedded(database: str) -> None:
    register_expert()
    with db.transaction() as session:
        kept_documents.wish(session, experts.get_version(session, 1), private=False, forget=True)
    with worker():
        wait_until(version_now, VersionState.READY)
    assert version_now().kept_documents is None
    with db.transaction() as session:
        assert embeddings.find_all(session, experts.get_version(session, 1))
