"""Real worker processes for tests: start them, kill them, and read the state that they leave."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
from sqlalchemy import text

from assembler.mixes import job_events, mixes
from assembler.mixes.mix_state import STATES
from assembler.mixes.new_mix import NewMix
from assembler.recipes.recipe import Finetune
from assembler.tables import FINAL_STATES, MixVersion
from engine.compression.int8_curve import Compression
from engine.gates.policy import (
    BaseLimits,
    CandidateLimits,
    GeneralLimits,
    Policy,
    ServedLimits,
)
from registry.blobs import blob_stores
from registry.database import db
from registry.settings import settings
from tests.assembler import rows

PATIENCE_SECONDS = 240.0

SHORT = Finetune(tokens=60 * 4 * 32, batch_size=4, sequence_length=32)
ENDLESS = Finetune(tokens=10**9, batch_size=4, sequence_length=32)
# Lenient limits: random networks are no better than their seed, and the tests check the jobs.
LENIENT = Policy(
    prompts_per_domain=2,
    completion_tokens=8,
    served=ServedLimits(min_fdt_75=0, min_equal_share=0, max_dppl_ratio=100),
    candidate=CandidateLimits(max_perplexity_ratio_to_seed=100),
    base=BaseLimits(max_perplexity_ratio=100),
    general=GeneralLimits(max_perplexity_ratio_to_parents=100),
)
# Every event of a whole job, once.
WHOLE: dict[tuple[str | None, str], int] = {
    **{(step, phase): 1 for step in STATES for phase in ("began", "ended")},
    (None, "finished"): 1,
}


def forget_jobs() -> None:
    """Delete the jobs of earlier tests, whose rows are gone."""
    with db.transaction() as session:
        session.execute(text("DROP SCHEMA IF EXISTS dbos CASCADE"))


@contextmanager
def worker(*, executor_id: str = "worker-1") -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker on the test's database and data folder; kill it at the end of the block."""
    log = settings().home / "logs" / "worker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) | {
        "NEXUSMIX_EXECUTOR_ID": executor_id,
        "OMP_NUM_THREADS": "1",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "assembler.jobs.worker"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def request_mix(
    *,
    finetune: Finetune = SHORT,
    compress: Compression | None = None,
    gates: Policy = LENIENT,
    preview: bool = False,
) -> MixVersion:
    """Request a mix `mine` of two tiny experts, to be deployed, and commit."""
    with db.transaction() as session:
        rows.add_all(session, blob_stores.store())
    return request_again(finetune=finetune, compress=compress, gates=gates, preview=preview)


def request_again(
    *,
    finetune: Finetune = SHORT,
    compress: Compression | None = None,
    gates: Policy = LENIENT,
    preview: bool = False,
    **policy: int,
) -> MixVersion:
    """Request `mine` of rows that are there, with these changes of the policy, and commit."""
    with db.transaction() as session:
        new_mix = NewMix(
            name="mine",
            family="tiny",
            experts=["expert-1", "expert-2"],
            finetune=finetune.model_dump(),
            compress={} if compress is None else compress.model_dump(),
            gates=gates.model_dump() | policy,
        )
        blobs = blob_stores.store()
        return mixes.request(session, blobs, new_mix, deploy=True, preview=preview)


def version_of(version_id: int) -> MixVersion:
    return job_events.durably(lambda session: session.get_one(MixVersion, version_id))


def num_tokens_of(version: MixVersion) -> int:
    """Return the number of tokens that the finetune has read; 0 while another step runs."""
    progress = version_of(version.id).progress or {}
    return int(progress.get("num_tokens", 0))


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            log = settings().home / "logs" / "worker.log"
            tail = log.read_text()[-4000:] if log.exists() else ""
            raise AssertionError(f"waited in vain for {what}\n{tail}")
        time.sleep(0.05)


def wait_until_over(version_id: int) -> MixVersion:
    wait_for(lambda: version_of(version_id).state in FINAL_STATES, "the end of the mix")
    return version_of(version_id)


def steps_of(version: MixVersion) -> list[tuple[int, int]]:
    """Return the training steps that were reported, each with the id of its event."""
    events = job_events.durably(lambda session: job_events.events_after(session, version.job_id))
    return [(event.id, event.data["step"]) for event in events if event.type == "metrics"]


def phases(job_id: str) -> Counter[tuple[str | None, str]]:
    """Count how often each step of a job, or (None) the job itself, began and ended."""
    events = job_events.durably(lambda session: job_events.events_after(session, job_id))
    return Counter(
        (event.data.get("step"), event.data["phase"]) for event in events if event.type == "state"
    )


def processes_of_home() -> list[psutil.Process]:
    """Return all processes that use this test's data folder, except the test itself."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("NEXUSMIX_HOME") == str(settings().home):
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [process for process in processes if process.pid != os.getpid()]
