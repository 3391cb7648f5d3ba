"""Jobs run to their end whatever dies on the way: real workers, real steps, tiny networks."""

import math
from collections.abc import Iterator

import pytest

from assembler import backlog, mixes
from assembler.embedder import embedders, states_shape
from assembler.recipe import Finetune
from assembler.tables import MixState, MixVersion
from registry import blobs as blob_stores
from registry import db, embeddings, experts
from registry.errors import NotFound
from tests import tiny
from tests.assembler import rows
from tests.assembler.workers import (
    ENDLESS,
    LENIENT,
    WHOLE,
    forget_jobs,
    num_tokens_of,
    phases,
    processes_of_home,
    request_mix,
    version_of,
    wait_for,
    wait_until_over,
    worker,
)

pytestmark = pytest.mark.slow

IMPOSSIBLE = LENIENT.model_copy(update={"max_perplexity_ratio_to_seed": 1e-6})


@pytest.fixture(autouse=True)
def clean(database: str) -> Iterator[None]:
    """No job of an earlier test is remembered, no process of this one is left."""
    forget_jobs()
    yield
    wait_for(lambda: not processes_of_home(), "the end of all processes")


def wait_for_step(version: MixVersion, step: str) -> None:
    wait_for(lambda: phases(version.job_id)[step, "began"] == 1, f"the beginning of {step}")


def wait_for_training(version: MixVersion) -> None:
    wait_for(lambda: num_tokens_of(version) > 0, "training steps")


def test_a_worker_killed_in_each_step(database: str) -> None:
    version = request_mix()
    for step in ("assemble", "finetune", "gate"):
        with worker() as process:
            wait_for_step(version, step)
            if step == "finetune":
                wait_for_training(version)
            process.kill()
    with worker():
        done = wait_until_over(version.id)
    assert (done.state, done.error) == (MixState.SUCCEEDED, None)
    assert done.artifact_id is not None
    assert phases(version.job_id) == WHOLE | {(None, "recovered"): 3}


def test_a_failed_gate_keeps_its_report(database: str) -> None:
    version = request_mix(finetune=Finetune(tokens=0), gates=IMPOSSIBLE)
    with worker():
        done = wait_until_over(version.id)
    assert done.state is MixState.FAILED
    assert "perplexity_ratio_to_seed" in (done.error or "")
    assert done.gate_report_digest is not None
    assert done.artifact_id is None


def test_a_cancelled_finetune_ends_at_once(database: str) -> None:
    version = request_mix(finetune=ENDLESS)
    with worker():
        wait_for_training(version)
        with db.transaction() as session:
            mixes.cancel(session, "mine")
        wait_for(lambda: len(processes_of_home()) == 1, "the end of the step")
    assert version_of(version.id).state is MixState.CANCELLED
    assert phases(version.job_id)["finetune", "ended"] == 0


def test_a_stopped_worker_leaves_its_job_to_the_next(database: str) -> None:
    version = request_mix(finetune=ENDLESS)
    with worker() as process:
        wait_for_training(version)
        process.terminate()
        assert process.wait(timeout=30) == 0
    num_tokens = num_tokens_of(version)
    with worker():
        wait_for(lambda: num_tokens_of(version) > num_tokens, "more training steps")
    assert phases(version.job_id)[None, "recovered"] == 0


def test_another_worker_takes_over_from_a_dead_one(database: str) -> None:
    version = request_mix(finetune=ENDLESS)
    with worker(executor_id="first") as process:
        wait_for_training(version)
        process.kill()
    num_tokens = num_tokens_of(version)
    with worker(executor_id="second"):
        wait_for(lambda: phases(version.job_id)[None, "recovered"] == 1, "the takeover")
        wait_for(lambda: num_tokens_of(version) > num_tokens, "more training steps")


def test_a_new_version_is_embedded(database: str) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)

    def embedded() -> bool:
        with db.transaction() as session:
            version = experts.pin(session, "expert-1")
            try:
                current = embedders(version.expert.family.seed_digest)
                found = embeddings.find(session, version, embedders=current)
            except NotFound:
                return False
            assert found.states_digest is not None
            dense = tiny.ARCHITECTURE
            size = math.prod(states_shape(dense.num_hidden_layers, dense.hidden_size))
            return blob_stores.store().size(found.states_digest) == 4 * size

    with worker():
        wait_for(embedded, "the domain embedding")
    assert phases(backlog.embedding_job_id(1))["embed", "ended"] == 1
