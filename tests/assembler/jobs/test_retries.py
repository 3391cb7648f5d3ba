"""A job waits for what is away, is parked when it kills its process, and goes on when retried.

Workers, steps, kills and the S3 server are real.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from assembler.mixes import job_events, mixes
from assembler.recipes.recipe import Finetune
from assembler.tables import MixState, MixVersion
from assembler.training.finetune import CHECKPOINT_STEPS
from registry import settings
from registry.blobs import blob_stores
from registry.database import db
from tests.assembler.workers import (
    ENDLESS,
    SHORT,
    forget_jobs,
    num_tokens_of,
    phases,
    processes_of_home,
    request_again,
    request_mix,
    steps_of,
    version_of,
    wait_for,
    wait_until_over,
    worker,
)
from tests.seaweed import BUCKET, KEY, SECRET, SeaweedServer

pytestmark = pytest.mark.slow

SAVED_TOKENS = CHECKPOINT_STEPS * SHORT.batch_size * SHORT.sequence_length


@pytest.fixture(autouse=True)
def clean(database: str) -> Iterator[None]:
    """Delete the jobs of earlier tests, and check that this test leaves no process."""
    forget_jobs()
    yield
    wait_for(lambda: not finetunes(), "the end of all finetunes")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SeaweedServer]:
    """Keep the tensors of this test in a bucket."""
    with SeaweedServer(tmp_path / "s3") as server:
        for name, value in {
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": server.endpoint_url,
            "S3_ACCESS_KEY_ID": KEY,
            "S3_SECRET_ACCESS_KEY": SECRET,
        }.items():
            monkeypatch.setenv(f"NEXUSMIX_{name}", value)
        settings.settings.cache_clear()
        blob_stores.store.cache_clear()
        yield server


def kill_its_finetune(version: MixVersion, *, kills: int) -> None:
    """Kill the process of the finetune, the first time after its first checkpoint."""
    wait_for(lambda: num_tokens_of(version) > SAVED_TOKENS, "a checkpoint")
    for number in range(1, kills + 1):
        wait_for(lambda: bool(finetunes()), "the process of the finetune")
        finetunes()[0].kill()
        wait_for(partial(was_killed, version, number), "the kill")


def was_killed(version: MixVersion, times: int) -> bool:
    return phases(version.job_id)["finetune", "killed"] == times


def finetunes() -> list[psutil.Process]:
    """Return the processes of finetunes, not their process guards."""
    return [process for process in processes_of_home() if is_finetune(process)]


def is_finetune(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False  # it has just ended
    return "finetune" in command and "-I" not in command


def test_a_parked_finetune_goes_on_from_its_checkpoint(database: str) -> None:
    version = request_mix(finetune=ENDLESS)
    with worker():
        kill_its_finetune(version, kills=3)
        parked = wait_until_over(version.id)
        assert parked.state is MixState.PARKED
        assert "killed by signal 9" in (parked.error or "")
        last_id = steps_of(version)[-1][0]
        with db.transaction() as session:
            mixes.retry(session, "mine@1")
        wait_for(lambda: steps_of(version)[-1][0] > last_id, "more training steps")
    assert min(step for event, step in steps_of(version) if event > last_id) > CHECKPOINT_STEPS
    assert phases(version.job_id)["assemble", "ended"] == 1


@pytest.mark.long
def test_a_new_request_does_not_finetune_from_zero(database: str) -> None:
    first = request_mix(finetune=ENDLESS)
    with worker():
        wait_for(lambda: num_tokens_of(first) > SAVED_TOKENS, "a checkpoint")
        with db.transaction() as session:
            mixes.cancel(session, "mine@1")
        wait_for(lambda: not finetunes(), "the end of the step")
        second = request_again(finetune=ENDLESS)
        assert second.id != first.id
        wait_for(lambda: bool(steps_of(second)), "training steps")
    assert steps_of(second)[0][1] > CHECKPOINT_STEPS


@pytest.mark.long
def test_a_finished_finetune_is_used_by_a_mix_with_another_policy(database: str) -> None:
    first = request_mix()
    with worker():
        wait_for(lambda: phases(first.job_id)["finetune", "ended"] == 1, "the finetune")
        with db.transaction() as session:
            mixes.cancel(session, "mine@1")
        second = request_again(prompts_per_domain=3)
        done = wait_until_over(second.id)
    assert (done.state, done.error) == (MixState.SUCCEEDED, None)
    assert done.finetuned_digest == version_of(first.id).finetuned_digest
    assert steps_of(second) == [], "it has not trained"


def test_a_job_waits_for_the_object_store(database: str, s3: SeaweedServer) -> None:
    version = request_mix(finetune=Finetune(tokens=0))
    s3.stop()
    with worker():
        wait_for(lambda: phases(version.job_id)["assemble", "waiting"] > 1, "two attempts")
        s3.start()
        done = wait_until_over(version.id)
    assert (done.state, done.error) == (MixState.SUCCEEDED, None)


@pytest.mark.long
def test_waiting_ends_and_a_retry_goes_on(
    database: str, s3: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_STEP_RETRY_SECONDS", "0")
    version = request_mix(finetune=Finetune(tokens=0))
    s3.stop()
    with worker():
        failed = wait_until_over(version.id)
        assert failed.state is MixState.FAILED
        assert "the object store cannot be reached" in (failed.error or "")
        s3.start()
        with db.transaction() as session:
            mixes.retry(session, "mine@1")
        done = wait_until_over(version.id)
    assert (done.state, done.error) == (MixState.SUCCEEDED, None)
    events = job_events.durably(lambda session: job_events.events_after(session, version.job_id))
    assert "retried" in [event.message for event in events]
