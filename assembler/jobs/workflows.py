"""The durable jobs: each is a list of steps that are recorded as they end.

A dead worker therefore costs at most one step. A step does not raise to end its job: it stores the
error in the job's row and returns whether the job continues. So no error has to be pickled, and a
cancelled job leaves no stack trace in the log.
"""

from typing import Literal

from dbos import DBOS
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assembler.jobs import queues, step_process
from assembler.mixes import job_events, mix_state, publishing
from assembler.recipes.recipe import Recipe
from assembler.tables import Mix, MixState
from assembler.training.parallelism import Parallelism
from engine.serving import deployments
from registry.blobs import blob_stores
from registry.catalog import artifacts, projections
from registry.database import db
from registry.database.tables import ProjectionState
from registry.errors import StepFailed


@DBOS.workflow(name=queues.MAKE_MIX)
def make_mix(version_id: int) -> None:
    """Make one version of a mix, step by step."""
    for step in (assemble, finetune, compress, gate, publish, deploy):
        if not step(version_id):
            return


@DBOS.workflow(name=queues.EMBED_DOMAIN)
def embed_domain(version_id: int) -> None:
    """Embed the domain of one version of an expert."""
    embed(version_id, _job_id())


@DBOS.workflow(name=queues.TRAIN_PROJECTION)
def train_projection(projection_id: int) -> None:
    """Learn one version of a family's projection."""
    train(projection_id, _job_id())


@DBOS.step()
def assemble(version_id: int) -> bool:
    return _run(version_id, step="assemble")


@DBOS.step()
def finetune(version_id: int) -> bool:
    if job_events.durably(lambda session: _skip(session, version_id, step="finetune")):
        return True
    parallelism = Parallelism.of_settings()
    try:
        job_events.durably(lambda session: _check_parallelism(session, version_id, parallelism))
    except StepFailed as error:
        detail = error.detail
        job_events.durably(lambda session: _fail_mix(session, version_id, detail))
        return False
    return _run(version_id, step="finetune", num_processes=parallelism.num_processes)


@DBOS.step()
def compress(version_id: int) -> bool:
    if job_events.durably(lambda session: _skip(session, version_id, step="compress")):
        return True
    return _run(version_id, step="compress")


@DBOS.step()
def gate(version_id: int) -> bool:
    return _run(version_id, step="gate")


@DBOS.step()
def publish(version_id: int) -> bool:
    return job_events.durably(lambda session: _publish(session, version_id))


@DBOS.step()
def deploy(version_id: int) -> bool:
    return job_events.durably(lambda session: _deploy(session, version_id))


@DBOS.step()
def embed(version_id: int, job_id: str) -> None:
    if job_events.durably(lambda session: job_events.begin_step(session, job_id, step="embed")):
        try:
            step_process.run("embed", version_id, job_id=job_id, cancelled=_never)
        except StepFailed as error:
            _note_failure(job_id, error)


@DBOS.step()
def train(projection_id: int, job_id: str) -> None:
    if job_events.durably(lambda session: _begin_training(session, projection_id, job_id)):
        try:
            step_process.run("train-projection", projection_id, job_id=job_id, cancelled=_never)
        except StepFailed as error:
            _note_failure(job_id, error)
            detail = error.detail
            job_events.durably(lambda session: _fail_projection(session, projection_id, detail))


def _run(version_id: int, *, step: str, num_processes: int = 1) -> bool:
    """Run one step of a mix in child processes; return whether the job continues."""
    if job_events.durably(lambda session: mix_state.begin(session, version_id, step=step)):
        job_id = job_events.durably(lambda session: mix_state.locked(session, version_id).job_id)
        try:
            step_process.run(
                step,
                version_id,
                job_id=job_id,
                cancelled=lambda: _is_over(version_id),
                num_processes=num_processes,
            )
        except step_process.Cancelled:
            return False
        except StepFailed as error:
            detail = error.detail
            job_events.durably(lambda session: _fail_mix(session, version_id, detail))
    return not job_events.durably(lambda session: mix_state.is_over(session, version_id))


def _is_over(version_id: int) -> bool:
    try:
        with db.transaction() as session:
            return mix_state.is_over(session, version_id)
    except DBAPIError as error:
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


def _publish(session: Session, version_id: int) -> bool:
    if mix_state.begin(session, version_id, step="publish"):
        version = mix_state.locked(session, version_id)
        artifact = publishing.publish(session, version, blobs=blob_stores.store())
        mix_state.complete(session, version_id, step="publish", artifact_id=artifact.id)
    return not mix_state.is_over(session, version_id)


def _deploy(session: Session, version_id: int) -> bool:
    """Request a deployment if the mix's request asks for one, and mark the mix as succeeded."""
    if mix_state.begin(session, version_id, step="deploy"):
        version = mix_state.locked(session, version_id)
        mix = session.get_one(Mix, version.mix_id)
        assert version.artifact_id is not None
        if version.deploy:
            artifact = artifacts.get(session, version.artifact_id)
            deployments.request(session, artifact, model=mix.name)
        mix_state.complete(session, version_id, step="deploy")
        mix_state.finish(session, version_id, state=MixState.SUCCEEDED)
    return False


def _begin_training(session: Session, projection_id: int, job_id: str) -> bool:
    projection = projections.get(session, projection_id)
    if projection.state not in (ProjectionState.QUEUED, ProjectionState.TRAINING):
        return False
    projections.mark_training(session, projection)
    return job_events.begin_step(session, job_id, step="train-projection")


def _fail_projection(session: Session, projection_id: int, detail: str) -> None:
    projections.mark_failed(session, projections.get(session, projection_id), error=detail)


def _fail_mix(session: Session, version_id: int, detail: str) -> None:
    mix_state.finish(session, version_id, state=MixState.FAILED, error=detail)


def _note_failure(job_id: str, error: StepFailed) -> None:
    data = {"phase": "finished", "error": error.detail}
    job_events.durably(
        lambda session: job_events.record(
            session, job_id, type="state", message=error.detail, data=data
        )
    )


def _job_id() -> str:
    job_id = DBOS.workflow_id
    assert job_id is not None, "called outside a workflow"
    return job_id


def _never() -> bool:
    return False
