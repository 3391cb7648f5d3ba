"""Jobs finish although workers and steps die; workers and steps are real, networks are tiny.

Covers: queues, step_main, workflows.
"""

import math
import signal
from collections.abc import Iterator, Sequence

import psutil
import pytest

from assembler.assembly.provenance import Provenance
from assembler.jobs import job_ids
from assembler.mixes import fence, job_events, mixes
from assembler.recipes.recipe import Finetune
from assembler.routing.embedder import embedders, states_shape
from assembler.routing.input_moments import InputMoments, shapes
from assembler.tables import MixState, MixVersion
from assembler.training.finetune import CHECKPOINT_STEPS
from engine.compression.int8_curve import Compression, Curve
from engine.gates.mix_gate import GateReport
from engine.gates.policy import CandidateLimits
from engine.serving import deployments
from engine.serving.agent import Agent
from engine.serving.tables import Deployment
from registry.blobs import blob_stores
from registry.blobs.blobs import get_bytes
from registry.catalog import artifacts, embeddings, experts
from registry.checkpoints import manifests
from registry.checkpoints.int8_config import int8_modules
from registry.database import db
from registry.database.tables import VersionState
from registry.errors import NotFound
from tests import tiny
from tests.assembler import rows
from tests.assembler.workers import (
    ENDLESS,
    LENIENT,
    SHORT,
    WHOLE,
    forget_jobs,
    num_tokens_of,
    phases,
    processes_of_home,
    request_mix,
    steps_of,
    version_of,
    wait_for,
    wait_until_over,
    worker,
)
from tests.engine.stand_in_agents import StandInLauncher, State, become_ready

pytestmark = pytest.mark.slow

IMPOSSIBLE = LENIENT.model_copy(
    update={"candidate": CandidateLimits(max_perplexity_ratio_to_seed=1e-6)}
)


@pytest.fixture(autouse=True)
def clean(database: str) -> Iterator[None]:
    """Delete the jobs of earlier tests, and check that this test leaves no process."""
    forget_jobs()
    yield
    wait_for(lambda: not processes_of_home(), "the end of all processes")


@pytest.fixture
def agent(database: str) -> Iterator[Agent]:
    """An agent that starts stand-ins for vLLM."""
    launcher = StandInLauncher()
    agent = Agent(launcher=launcher)
    yield agent
    agent.close()
    for process in launcher.started:
        process.terminate(1)


def deployments_of(model: str) -> Sequence[Deployment]:
    """Return the deployments of a model name, oldest first."""
    with db.transaction() as session:
        return deployments.find_page(session, model=model)[::-1]


def wait_for_step(version: MixVersion, step: str) -> None:
    wait_for(lambda: phases(version.job_id)[step, "began"] == 1, f"the beginning of {step}")


def wait_for_training(version: MixVersion) -> None:
    wait_for(lambda: num_tokens_of(version) > 0, "training steps")


def use_processes(
    monkeypatch: pytest.MonkeyPatch, *, num_processes: int = 2, degree: int = 2
) -> None:
    """Let the workers of this test finetune with `num_processes` processes."""
    monkeypatch.setenv("NEXUSMIX_TRAINING_PROCESSES", str(num_processes))
    monkeypatch.setenv("NEXUSMIX_EXPERT_PARALLEL_DEGREE", str(degree))


def process_of_rank(rank: int) -> psutil.Process:
    """Return the training process of a rank, not its process guard."""
    return next(
        process
        for process in processes_of_home()
        if process.environ().get("RANK") == str(rank) and "-I" not in process.cmdline()
    )


def test_a_job_survives_a_killed_worker_in_each_step(database: str) -> None:
    version = request_mix(preview=True)
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
    # Nobody has started its engine. It is there once, and the release will replace it.
    preview, release = deployments_of("mine")
    assert (preview.manifest_digest, preview.is_preview) == (done.assembled_digest, True)
    assert (preview.state, release.state) == (State.REQUESTED, State.REQUESTED)
    assert release.artifact_id == done.artifact_id


def test_a_failed_gate_keeps_its_report(database: str) -> None:
    version = request_mix(finetune=Finetune(tokens=0), gates=IMPOSSIBLE, preview=True)
    with worker():
        done = wait_until_over(version.id)
    assert done.state is MixState.FAILED
    assert "perplexity_ratio_to_seed" in (done.error or "")
    assert done.gate_report_digest is not None
    assert done.artifact_id is None
    (preview,) = deployments_of("mine")
    assert preview.state is State.STOPPED
    assert (preview.error or "").startswith("its gate refused it")


def test_a_job_waits_for_the_engine_of_its_preview(agent: Agent) -> None:
    version = request_mix(finetune=ENDLESS, preview=True)
    agent.round()  # it acts for this host
    with worker():
        wait_for(lambda: len(deployments_of("mine")) == 1, "the preview")
        assert phases(version.job_id)["finetune", "began"] == 0
        (preview,) = deployments_of("mine")
        become_ready(agent, preview.id)
        wait_for_step(version, "finetune")
        with db.transaction() as session:
            mixes.cancel(session, "mine@1")
            events = job_events.events_after(session, version.job_id)
    assert "preview answers as model 'mine'; its gate has not judged it yet" in [
        event.message for event in events
    ]
    (preview,) = deployments_of("mine")
    assert (preview.state, preview.error) == (
        State.DRAINING,
        "it was cancelled; its page says more",
    )


def test_a_cancelled_finetune_ends_at_once(database: str) -> None:
    version = request_mix(finetune=ENDLESS)
    with worker():
        wait_for_training(version)
        with db.transaction() as session:
            mixes.cancel(session, "mine@1")
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


def test_a_worker_that_was_cut_off_is_replaced_and_stops(database: str) -> None:
    """A frozen worker renews nothing; its step goes on, and must not write any more."""
    version = request_mix(finetune=ENDLESS)
    with worker(executor_id="first") as frozen:
        wait_for_training(version)
        frozen.send_signal(signal.SIGSTOP)
        step = next(p for p in processes_of_home() if p.environ().get(fence.VARIABLE))
        with worker(executor_id="second"):
            wait_for(lambda: phases(version.job_id)[None, "recovered"] == 1, "the takeover")
            wait_for(lambda: not step.is_running() or step.status() == "zombie", "its step's end")
            num_tokens = num_tokens_of(version)
            wait_for(lambda: num_tokens_of(version) > num_tokens, "more training steps")
            frozen.send_signal(signal.SIGCONT)
            assert frozen.wait(timeout=60) == 1
            num_tokens = num_tokens_of(version)
            wait_for(lambda: num_tokens_of(version) > num_tokens, "more training steps")


def test_a_finetune_of_two_processes_survives_one(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_processes(monkeypatch)
    version = request_mix()
    saved = CHECKPOINT_STEPS * SHORT.batch_size * SHORT.sequence_length
    with worker():
        wait_for(lambda: num_tokens_of(version) > saved, "a checkpoint")
        last_id = steps_of(version)[-1][0]
        process_of_rank(1).kill()
        wait_for(lambda: phases(version.job_id)["finetune", "ended"] == 1, "the end of the step")
    done = version_of(version.id)
    assert done.finetuned_digest is not None
    later = [step for event_id, step in steps_of(version) if event_id > last_id]
    assert min(later) > CHECKPOINT_STEPS
    assert done.environment is not None
    assert done.environment["training_processes"] == 2


def test_an_error_of_many_processes_is_reported_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_processes(monkeypatch)
    version = request_mix()
    # Set after the request, which would refuse it, so that the training processes fail.
    with db.transaction() as session:
        row = session.get_one(MixVersion, version.id)
        longer = SHORT.model_copy(update={"sequence_length": 100_000}).model_dump(mode="json")
        row.recipe = row.recipe | {"finetune": longer}
    with worker():
        done = wait_until_over(version.id)
    assert (done.error or "").startswith("finetune: too little text to finetune on; /experts/0")


def test_a_cancelled_finetune_of_two_processes_ends_at_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_processes(monkeypatch)
    version = request_mix(finetune=ENDLESS)
    with worker():
        wait_for_training(version)
        with db.transaction() as session:
            mixes.cancel(session, "mine@1")
        wait_for(lambda: len(processes_of_home()) == 1, "the end of the step")
    assert version_of(version.id).state is MixState.CANCELLED


def test_a_finetune_that_does_not_fit_is_not_started(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = request_mix()
    use_processes(monkeypatch, num_processes=3, degree=3)
    with worker():
        done = wait_until_over(version.id)
    assert done.state is MixState.FAILED
    for number in ("the mix's 2 experts", "is 4, must be a multiple of the 3 training processes"):
        assert number in (done.error or "")


def test_a_new_version_is_embedded(database: str) -> None:
    with db.transaction() as session:
        family = rows.add_family(session, blob_stores.store())
        rows.add_expert(session, blob_stores.store(), family, number=1, embedded=False)

    def embedded() -> bool:
        with db.transaction() as session:
            version = experts.get_version(session, 1)
            if version.state is not VersionState.READY:
                return False
            try:
                current = embedders(version.expert.family.seed_digest)
                found = embeddings.find(session, version, embedders=current)
            except NotFound:
                return False
            assert found.states_digest is not None
            assert found.moments_digest is not None
            moments = InputMoments.of(blob_stores.store(), found.moments_digest)
            assert all(moments.find(name) is not None for name in shapes(tiny.ARCHITECTURE))
            dense = tiny.ARCHITECTURE
            size = math.prod(states_shape(dense.num_hidden_layers, dense.hidden_size))
            return blob_stores.store().size(found.states_digest) == 4 * size

    with worker():
        wait_for(embedded, "the domain embedding")
    with db.transaction() as session:
        job_id = job_ids.of_embedding(experts.get_version(session, 1))
    assert phases(job_id)["embed", "ended"] == 1


def test_a_compressed_mix_is_gated_and_published_compressed(database: str) -> None:
    request = Compression(min_fdt_75=0, rounds=2, prompts=4, prefix_tokens=8, completion_tokens=4)
    version = request_mix(finetune=Finetune(tokens=0), compress=request)
    with worker():
        done = wait_until_over(version.id)
    assert done.state is MixState.SUCCEEDED, done.error
    assert done.curve_digest is not None
    assert done.artifact_id is not None
    store = blob_stores.store()
    curve = Curve.model_validate_json(get_bytes(store, done.curve_digest))
    report = GateReport.model_validate_json(get_bytes(store, done.gate_report_digest or ""))
    with db.transaction() as session:
        artifact = artifacts.get(session, done.artifact_id)
    published = manifests.load(store, artifact.manifest_digest)
    assert published.digest == done.compressed_digest == report.manifest_digest
    assert published.num_bytes == curve.chosen.num_bytes < curve.points[0].num_bytes
    assert int8_modules(published.config)
    against = report.stages["compressed"].against
    assert against == {"the mix before its compression": done.assembled_digest}
    assert all(domain.compressed is not None for domain in report.domains)
    lock = Provenance.model_validate_json(get_bytes(store, artifact.provenance_digest or ""))
    assert lock.made == published.digest
