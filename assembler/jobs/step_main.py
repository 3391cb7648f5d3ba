"""`python -m assembler.jobs.step_main STEP ID`: run one step of a job in a process of its own.

A step reads its inputs from rows and blobs. It writes blobs first, then its result and its end in
one short transaction, so a step that died is run again. The process ends with 0, or with the
status of `assembler.jobs.step_errors` and a last line `{"error": "..."}` on stderr.

Each step imports what it needs: everything together takes four times as long to load as an
assembly needs, and a mix should be usable in seconds.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.orm import Session

from assembler.assembly.inputs import MixInputs, gather
from assembler.assembly.provenance import Environment
from assembler.jobs import job_ids, registration_steps, step_errors
from assembler.jobs.step_errors import Kind
from assembler.mixes import earlier_results, job_events, leakage, mix_state
from assembler.recipes.recipe import ProjectionTraining, Recipe
from assembler.tables import MixVersion
from registry import logs
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents, projections
from registry.checkpoints import manifests
from registry.checkpoints.manifests import canonical_json
from registry.database import db
from registry.errors import GateFailed, NexusmixError
from registry.names import parse_ref
from registry.settings import settings

if TYPE_CHECKING:
    from assembler.evaluation.perplexities import GateCheckpoints
    from assembler.training.optimizer import Progress

log = structlog.get_logger(__name__)

# torchrun reads the error of a process from this file.
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
# Progress that is stored more often cannot be followed by a person.
REPORT_SECONDS = 0.5


def assemble(version_id: int) -> None:
    """Check the documents for leaks, and assemble the mix."""
    from assembler.jobs import pipeline

    blobs = blob_stores.store()
    version, inputs = _read(version_id)
    with db.transaction() as session:
        known = leakage.finetuned_on(session, inputs.recipe)
    leakage.check(inputs.recipe, known, blobs)
    mix = pipeline.assemble(inputs, blobs)
    if mix.architecture.num_experts:
        _warn_of_condition(version.job_id, *pipeline.worst_condition(mix, blobs))
    _complete(
        version_id,
        step="assemble",
        assembled_digest=manifests.store(blobs, mix),
        environment=Environment.here().model_dump(),
    )


def finetune(version_id: int) -> None:
    """Finetune the assembled mix; every process of the step runs this."""
    from assembler.jobs import pipeline
    from assembler.training.distributed import is_first_process

    blobs = blob_stores.store()
    version, inputs = _read(version_id)
    assert version.assembled_digest is not None
    checkpoint_path = earlier_results.checkpoints_path(version.job_id)
    mix = pipeline.finetune(
        manifests.load(blobs, version.assembled_digest),
        inputs,
        blobs=blobs,
        checkpoint_path=checkpoint_path,
        on_progress=_Reporter(version.job_id, version_id=version_id).trained,
        expert_parallel_degree=settings().expert_parallel_degree,
    )
    if not is_first_process():
        return
    _complete(
        version_id,
        step="finetune",
        finetuned_digest=manifests.store(blobs, mix),
        environment=Environment.here().model_dump(),
    )
    shutil.rmtree(checkpoint_path, ignore_errors=True)


def compress(version_id: int) -> None:
    """Compress the mix as its recipe asks."""
    from assembler.jobs import pipeline

    blobs = blob_stores.store()
    version, inputs = _read(version_id)
    assert version.trained_digest is not None
    mix, curve = pipeline.compress(
        manifests.load(blobs, version.trained_digest),
        inputs,
        blobs=blobs,
        on_progress=_Reporter(version.job_id, version_id=version_id).described,
    )
    _complete(
        version_id,
        step="compress",
        compressed_digest=manifests.store(blobs, mix),
        curve_digest=put_bytes(blobs, canonical_json(curve.model_dump(mode="json"))),
        environment=Environment.here().model_dump(),
    )


def gate(version_id: int) -> None:
    """Measure and judge the candidate. Raises GateFailed if it fails, after storing the report."""
    from assembler.evaluation import general_text
    from assembler.jobs import pipeline
    from engine.serving import adoption

    blobs = blob_stores.store()
    version, inputs = _read(version_id)
    with db.transaction() as session:
        general_digest = general_text.find_digest(session, inputs.recipe)
    reporter = _Reporter(version.job_id, version_id=version_id)
    reporter.described("holding the mix against its parents")
    report = pipeline.gate(
        _gate_checkpoints(version, inputs, blobs),
        inputs,
        general=general_text.read(general_digest, blobs),
        blobs=blobs,
        log_path=job_events.log_path(version.job_id, "server"),
        # Its preview, if it has the candidate's bytes: no second engine takes memory and time.
        find_server=adoption.find,
        on_progress=reporter.counted,
    )
    digest = put_bytes(blobs, canonical_json(report.model_dump(mode="json")))
    if report.passed:
        _complete(version_id, step="gate", gate_report_digest=digest)
        return
    job_events.durably(lambda session: mix_state.keep_report(session, version_id, digest=digest))
    raise GateFailed("; ".join(map(str, report.failures)))


def train_projection(projection_id: int) -> None:
    """Learn a family's projection."""
    from assembler.routing import projection

    blobs = blob_stores.store()
    with db.transaction() as session:
        row = projections.get(session, projection_id)
    parsed = documents.parse(blobs.read(row.documents_digest))
    trained = projection.train(
        manifests.load(blobs, row.family.seed_digest),
        parsed,
        training=ProjectionTraining.model_validate(row.training),
        blobs=blobs,
        on_progress=_Reporter(job_ids.of_projection(row)).counted,
    )
    digest = manifests.store(blobs, trained)

    def store(session: Session) -> None:
        projections.mark_ready(
            session,
            projections.get(session, projection_id),
            manifest_digest=digest,
            metrics=trained.config["metrics"]
            | {"domains": sorted({text.domain for text in parsed if text.domain})},
        )
        job_events.end_step(session, job_ids.of_projection(row), step="train-projection")

    job_events.durably(store)


STEPS: dict[str, Callable[[int], None]] = {
    "assemble": assemble,
    "finetune": finetune,
    "compress": compress,
    "gate": gate,
    registration_steps.CHECK_FAMILY: registration_steps.check_family,
    registration_steps.IMPORT: registration_steps.import_expert,
    registration_steps.CHECK_EXPERT: registration_steps.check_expert,
    registration_steps.EMBED: registration_steps.embed,
    registration_steps.MEASURE: registration_steps.measure,
    "train-projection": train_projection,
}


def main(step: str, target_id: int) -> int:
    logs.configure(step, level=settings().log_level)
    try:
        STEPS[step](target_id)
    except NexusmixError as error:
        return _failed(error)
    except Exception as error:
        with suppress(OSError):  # the log may lie on the disk that is full
            log.exception("step failed")
        return _failed(error)
    return 0


class _Reporter:
    """Stores the progress of a step, at most once in REPORT_SECONDS."""

    def __init__(self, job_id: str, *, version_id: int | None = None) -> None:
        self._job_id, self._version_id = job_id, version_id
        self._reported_at = float("-inf")

    def trained(self, state: "Progress") -> None:
        self._report(asdict(state), is_last=state.step == state.num_steps)

    def counted(self, what: str, step: int, num_steps: int) -> None:
        values = {"what": what, "step": step, "num_steps": num_steps}
        self._report(values, is_last=step == num_steps)

    def described(self, what: str) -> None:
        self._report({"what": what}, is_last=False)

    def _report(self, values: dict[str, Any], *, is_last: bool) -> None:
        now = time.monotonic()
        if is_last or now - self._reported_at >= REPORT_SECONDS:
            self._reported_at = now
            job_events.durably(lambda session: self._write(session, values))

    def _write(self, session: Session, values: dict[str, Any]) -> None:
        if self._version_id is not None:
            mix_state.report(session, self._version_id, progress=values)
        if self._version_id is None or "loss" in values:
            job_events.record(
                session, self._job_id, type="metrics", message="progress", data=values
            )


def _warn_of_condition(job_id: str, router: str, condition: float) -> None:
    """Record a message of the job if a router can hardly separate its experts."""
    from assembler.routing.router_init import MAX_CONDITION

    if condition > MAX_CONDITION:
        message = (
            f"the rows of {router} are much alike, their condition number is {condition:.1f}"
            f" (above {MAX_CONDITION:g}): tokens may be sent to the wrong experts"
        )
        data = {"router": router, "condition": condition}
        job_events.durably(
            lambda session: job_events.record(
                session, job_id, type="message", message=message, data=data
            )
        )


def _read(version_id: int) -> tuple[MixVersion, MixInputs]:
    with db.transaction() as session:
        version = session.get_one(MixVersion, version_id)
        return version, gather(session, Recipe.model_validate(version.recipe))


def _complete(version_id: int, *, step: str, **values: Any) -> None:
    job_events.durably(lambda session: mix_state.complete(session, version_id, step=step, **values))


def _gate_checkpoints(
    version: MixVersion, inputs: MixInputs, blobs: BlobStore
) -> "GateCheckpoints":
    from assembler.evaluation.perplexities import GateCheckpoints

    assert version.assembled_digest is not None
    parts = inputs.parts(blobs)
    finetuned, compressed = version.finetuned_digest, version.compressed_digest
    return GateCheckpoints(
        seed=parts.seed,
        experts=dict(zip(inputs.recipe.domains, parts.experts, strict=True)),
        assembled=manifests.load(blobs, version.assembled_digest),
        finetuned=None if finetuned is None else manifests.load(blobs, finetuned),
        compressed=None if compressed is None else manifests.load(blobs, compressed),
        base=None if parts.base is None else parts.base.mix,
        base_domains=frozenset(parse_ref(ref)[0] for ref, _ in inputs.base_experts),
    )


def _failed(error: Exception) -> int:
    """Report an error, as far as the disk takes it, and return the exit status."""
    kind, message = step_errors.kind_of(error), step_errors.describe(error)
    # Of several processes the one with an expected error is believed.
    expected = isinstance(error, NexusmixError) or kind is not Kind.PERMANENT
    with suppress(OSError):
        if path := os.environ.get(ERROR_FILE):
            failure = {"message": message, "timestamp": int(time.time()), "expected": expected}
            Path(path).write_text(json.dumps(failure))
        sys.stderr.write(json.dumps({"error": message}) + "\n")
    return kind


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
