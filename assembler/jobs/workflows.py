"""The durable jobs of mixes: each is a list of steps that are recorded as they end.

A dead worker therefore costs at most one step. A step does not raise to end its job: it stores the
error in the job's row and returns whether the job continues. So no error has to be pickled, and a
cancelled job leaves no stack trace in the log. A step that fails transiently is repeated inside its
workflow, see `assembler.jobs.attempts`. A retry runs the workflow of a job anew, in which steps
that have ended return at once.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from dbos import DBOS
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assembler.jobs import attempts, queues, step_process
from assembler.jobs.durable import durably
from assembler.jobs.step_errors import Poisoned
from assembler.mixes import earlier_results, job_events, mix_state, previews, publishing
from assembler.mixes.earlier_results import LongStep
from assembler.recipes.recipe import Recipe
from assembler.tables import Mix, MixState, MixVersion
from assembler.training.parallelism import Parallelism
from engine.serving import deployments
from engine.serving.tables import Deployment
from registry.blobs import blob_stores
from registry.catalog import artifacts
from registry.database import db
from registry.errors import StepFailed

# How long a job waits for its preview, which takes 15 s on two cores.
PREVIEW_SECONDS = 90.0
PREVIEW_POLL_SECONDS = 0.2


@DBOS.workflow(name=queues.MAKE_MIX)
def make_mix(version_id: int) -> None:
    """Make one version of a mix, step by step."""
    for step in (assemble, finetune, compress, gate, publish, deploy):
        if not step(version_id):
            return


@DBOS.step()
def assemble(version_id: int) -> bool:
    return _run(version_id, step="assemble") and _preview(version_id)


@DBOS.step()
def finetune(version_id: int) -> bool:
    if durably(lambda session: _skip(session, version_id, step="finetune")):
        return True
    parallelism = Parallelism.of_settings()
    try:
        durably(lambda session: _check_parallelism(session, version_id, parallelism))
    except StepFailed as error:
        detail = error.detail
        durably(
            lambda session: mix_state.finish(
                session, version_id, state=MixState.FAILED, error=detail
            )
        )
        return False
    return _run(version_id, step="finetune", num_processes=parallelism.num_processes)


@DBOS.step()
def compress(version_id: int) -> bool:
    if durably(lambda session: _skip(session, version_id, step="compress")):
        return True
    return _run(version_id, step="compress")


@DBOS.step()
def gate(version_id: int) -> bool:
    return _run(version_id, step="gate")


@DBOS.step()
def publish(version_id: int) -> bool:
    attempt = partial(attempts.in_this_process, partial(_publish, version_id), step="publish")
    return _repeat(version_id, attempt, step="publish")


@DBOS.step()
def deploy(version_id: int) -> bool:
    durably(lambda session: _deploy(session, version_id))
    return False


def _run(version_id: int, *, step: str, num_processes: int = 1) -> bool:
    """Run one step of a mix in child processes; return whether the job continues."""
    if durably(lambda session: mix_state.begin(session, version_id, step=step)):
        job_id = _job_id()

        def attempt() -> None:
            long = earlier_results.long_step(step)
            if long is not None and attempts.in_this_process(
                partial(_is_done_already, version_id, long), step=step
            ):
                return
            step_process.run(
                step,
                version_id,
                job_id=job_id,
                cancelled=lambda: _is_over(version_id),
                num_processes=num_processes,
            )

        return _repeat(version_id, attempt, step=step)
    return not durably(lambda session: mix_state.is_over(session, version_id))


def _repeat(version_id: int, attempt: Callable[[], None], *, step: str) -> bool:
    """Repeat an attempt until the step ends or fails; return whether the job continues."""
    try:
        attempts.repeat(
            attempt,
            job_id=_job_id(),
            step=step,
            cancelled=lambda: _is_over(version_id),
            progress=lambda session: _reached(session, version_id),
        )
    except step_process.Cancelled:
        return False
    except StepFailed as error:
        state = MixState.PARKED if isinstance(error, Poisoned) else MixState.FAILED
        detail = error.detail
        durably(lambda session: mix_state.finish(session, version_id, state=state, error=detail))
        # Not read from the row: somebody may have retried the version already.
        return False
    return not durably(lambda session: mix_state.is_over(session, version_id))


def _is_done_already(version_id: int, step: LongStep) -> bool:
    """End a step whose result another version has; otherwise take over its checkpoints."""
    with db.transaction() as session:
        version = session.get_one(MixVersion, version_id)
        found = earlier_results.twins(session, version, step=step)
    twin = earlier_results.result_of(found, blob_stores.store(), step=step)
    if twin is not None:
        done = twin
        durably(lambda session: _take_result(session, version_id, done, step))
        return True
    if step == "finetune" and (twin := earlier_results.take_checkpoints(version, found)):
        text = f"finetune goes on from the checkpoint of {twin.job_id}, which had the same inputs"
        durably(lambda session: _tell(session, version.job_id, text))
    return False


def _take_result(session: Session, version_id: int, twin: MixVersion, step: LongStep) -> None:
    values = {column: getattr(twin, column) for column in earlier_results.RESULTS[step]}
    version = mix_state.complete(session, version_id, step=step, **values)
    text = f"{step} takes the result of {twin.job_id}: its inputs were the same"
    _tell(session, version.job_id, text)


def _tell(session: Session, job_id: str, text: str) -> None:
    job_events.record(session, job_id, type="message", message=text)


def _reached(session: Session, version_id: int) -> int:
    """Return how far the running step has come, in its own steps."""
    progress = session.get_one(MixVersion, version_id).progress or {}
    return int(progress.get("step", 0))


def _is_over(version_id: int) -> bool:
    try:
        with db.transaction() as session:
            return mix_state.is_over(session, version_id)
    except (DBAPIError, *db.OUTAGES) as error:
        if job_events.is_outage(error):
            return False  # a restarting database does not stop a training step
        raise


def _skip(session: Session, version_id: int, *, step: Literal["finetune", "compress"]) -> bool:
    """End a step that the recipe does not ask for, without starting a process."""
    recipe = Recipe.model_validate(mix_state.locked(session, version_id).recipe)
    if recipe.compress if step == "compress" else recipe.finetune.tokens:
        return False
    if mix_state.begin(session, version_id, step=step):
        mix_state.complete(session, version_id, step=step)
    return True


def _check_parallelism(session: Session, version_id: int, parallelism: Parallelism) -> None:
    recipe = Recipe.model_validate(mix_state.locked(session, version_id).recipe)
    parallelism.check(num_experts=recipe.num_experts, batch_size=recipe.finetune.batch_size)


def _publish(version_id: int) -> None:
    if not durably(lambda session: mix_state.begin(session, version_id, step="publish")):
        return
    with db.transaction() as session:
        version = session.get_one(MixVersion, version_id)
        publication = publishing.prepare(
            session, version, blobs=blob_stores.store(), override_digest=version.override_digest
        )

    def register(session: Session) -> None:
        artifact = publishing.register(session, version, publication)
        mix_state.complete(session, version_id, step="publish", artifact_id=artifact.id)

    durably(register)


def _preview(version_id: int) -> bool:
    """Have the assembled mix served, if its request says so; return whether the job continues.

    Waits until it answers: the next step would take the cores from the start of its engine.
    """
    if durably(lambda session: _request_preview(session, version_id)) is None:
        return True
    give_up_at = time.monotonic() + PREVIEW_SECONDS
    try:
        while time.monotonic() < give_up_at and durably(
            lambda session: previews.is_starting(session, mix_state.locked(session, version_id))
        ):
            attempts.wait(PREVIEW_POLL_SECONDS, lambda: _is_over(version_id))
    except step_process.Cancelled:
        return False
    durably(lambda session: previews.tell(session, mix_state.locked(session, version_id)))
    return not durably(lambda session: mix_state.is_over(session, version_id))


def _request_preview(session: Session, version_id: int) -> Deployment | None:
    version = mix_state.locked(session, version_id)
    found = previews.request(session, version)
    if found is not None:
        mix_state.report(session, version_id, progress={"what": "starting the preview's engine"})
    return found


def _deploy(session: Session, version_id: int) -> None:
    """Request a deployment if the mix's request asks for one, and mark the mix as succeeded."""
    if mix_state.begin(session, version_id, step="deploy"):
        version = mix_state.locked(session, version_id)
        mix = session.get_one(Mix, version.mix_id)
        assert version.artifact_id is not None
        if version.deploy:
            artifact = artifacts.get(session, version.artifact_id)
            ref = f"{mix.name}@{version.number}"
            deployments.request(session, artifact, model=mix.name, ref=ref)
        mix_state.complete(session, version_id, step="deploy")
        mix_state.finish(session, version_id, state=MixState.SUCCEEDED)


def _job_id() -> str:
    job_id = DBOS.workflow_id
    assert job_id is not None, "called outside a workflow"
    return job_id
