"""Estimate how long a step takes, from earlier steps of this installation or by rough rates.

A step takes a fixed time to start, and a time that grows with its work. If only the sum of an
earlier step is known, it gives two bounds: all of it is fixed, or all of it grows.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import gather
from assembler.planning import resource_estimates
from assembler.planning.plan_data import Estimate
from assembler.planning.resource_estimates import StepResources
from assembler.recipes.recipe import Recipe
from assembler.tables import JobEvent, MixState, MixVersion
from engine.serving.tables import Deployment
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.errors import NexusmixError
from registry.settings import settings

# Only the newest count, since software and machine change.
MAX_OBSERVATIONS = 5
# Phases of a job whose times say nothing about the work.
INTERRUPTIONS = ("recovered", "waiting", "killed", "retried")

RESOURCES: Mapping[str, Callable[[Blueprint], StepResources]] = {
    "assemble": resource_estimates.assembling,
    "finetune": resource_estimates.finetuning,
    "compress": resource_estimates.compressing,
    "gate": resource_estimates.gating,
    "deploy": resource_estimates.serving,
}


def steps_of(recipe: Recipe) -> tuple[str, ...]:
    """Return the steps of a recipe that have work to do."""
    idle = {"finetune": not recipe.finetune.num_steps, "compress": recipe.compress is None}
    return tuple(step for step in RESOURCES if not idle.get(step))


@dataclass(frozen=True)
class Rough:
    """Assumed ranges, slow to fast, for a step without observations.

    `start` is in seconds, `rate` in work per second; operations count for each core.
    """

    start: tuple[float, float]
    rate: tuple[float, float]
    unit: str


_BYTES = Rough(start=(1, 5), rate=(100e6, 1e9), unit="MB/s from the disk")
ROUGH: Mapping[str, Rough] = {
    "assemble": _BYTES,
    "finetune": Rough(start=(4, 15), rate=(20e9, 200e9), unit="GFLOP/s for each core"),
    "compress": Rough(start=(4, 15), rate=(10e9, 100e9), unit="GFLOP/s for each core"),
    "gate": Rough(start=(15, 60), rate=(10e9, 100e9), unit="GFLOP/s for each core"),
    "deploy": Rough(start=(5, 40), rate=_BYTES.rate, unit=_BYTES.unit),
}


@dataclass(frozen=True)
class Observation:
    """A step that was run: its work, its seconds, and the fixed part of them if that is known."""

    work: float
    seconds: float
    fixed: float | None = None

    def bounds(self, work: float) -> tuple[float, float]:
        """Return the bounds in seconds for another amount of work."""
        share = work / self.work
        if self.fixed is not None:
            known = self.fixed + (self.seconds - self.fixed) * share
            return known, known
        return min(self.seconds, self.seconds * share), max(self.seconds, self.seconds * share)


Observations = Mapping[str, Sequence[Observation]]


def estimate(step: str, work: float, observations: Sequence[Observation]) -> Estimate:
    if not observations:
        return _rough(step, work)
    bounds = [observation.bounds(work) for observation in observations]
    # A process has to start, however little work there is.
    floor = min(ROUGH[step].start[0], *(observation.seconds for observation in observations))
    return Estimate(
        low=max(floor, min(low for low, _ in bounds)),
        high=max(high for _, high in bounds),
        basis=f"from {len(bounds)} of this service's earlier mixes",
    )


def observe(session: Session, blobs: BlobStore) -> dict[str, list[Observation]]:
    """Return the newest observations of each step."""
    observations: dict[str, list[Observation]] = {step: [] for step in RESOURCES}
    observations["deploy"] = _deployments(session, blobs)
    versions = session.scalars(
        select(MixVersion)
        .where(MixVersion.state == MixState.SUCCEEDED)
        .order_by(MixVersion.id.desc())
        .limit(MAX_OBSERVATIONS)
    )
    for version in versions:
        try:
            inputs = gather(session, Recipe.model_validate(version.recipe))
            plan = Blueprint.of(inputs, blobs)
        except NexusmixError:
            continue  # its inputs are gone, or were made with another embedder
        for step, seconds in _seconds(session, version.job_id).items():
            if step not in steps_of(plan.recipe):
                continue  # ended at once: it had no work
            work = RESOURCES[step](plan).work
            fixed = _fixed(session, version.job_id, seconds) if step == "finetune" else None
            observations[step].append(Observation(work, seconds, fixed))
    return observations


def _seconds(session: Session, job_id: str) -> dict[str, float]:
    """Return the seconds of each step of a job; empty for a job that was interrupted."""
    events = session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.type == "state")
        .order_by(JobEvent.id)
    )
    began: dict[str, datetime] = {}
    took: dict[str, float] = {}
    for event in events:
        step, phase = event.data.get("step", ""), event.data.get("phase")
        if phase in INTERRUPTIONS:
            return {}
        if phase == "began":
            began[step] = event.created_at
        elif phase == "ended" and step in began:
            took[step] = (event.created_at - began[step]).total_seconds()
    return {
        step: took[step] for step in ("assemble", "finetune", "compress", "gate") if step in took
    }


def _fixed(session: Session, job_id: str, seconds: float) -> float | None:
    """Return the seconds of a finetune that were not training, by its last reported speed."""
    metrics = session.scalar(
        select(JobEvent.data)
        .where(JobEvent.job_id == job_id, JobEvent.type == "metrics")
        .order_by(JobEvent.id.desc())
        .limit(1)
    )
    if metrics is None or not metrics.get("tokens_per_second"):
        return None
    training: float = metrics["num_tokens"] / metrics["tokens_per_second"]
    return max(0.0, seconds - training)


def _deployments(session: Session, blobs: BlobStore) -> list[Observation]:
    rows = session.scalars(
        select(Deployment)
        # A deployment that was started again includes the time until its failure was noticed.
        .where(Deployment.ready_at.is_not(None), Deployment.num_starts == 1)
        .order_by(Deployment.id.desc())
        .limit(MAX_OBSERVATIONS)
    )
    found = []
    for deployment in rows:
        assert deployment.ready_at is not None
        seconds = (deployment.ready_at - deployment.created_at).total_seconds()
        found.append(
            Observation(manifests.load(blobs, deployment.manifest_digest).num_bytes, seconds)
        )
    return found


def _rough(step: str, work: float) -> Estimate:
    assumed = ROUGH[step]
    counts_cores = "core" in assumed.unit
    cores = settings().reserved_cpus or len(os.sched_getaffinity(0)) if counts_cores else 1
    slow, fast = assumed.rate
    scale = 1e9 if counts_cores else 1e6
    basis = (
        f"rough: nothing was measured here yet; assumed are {slow / scale:.0f} to"
        f" {fast / scale:.0f} {assumed.unit}"
    )
    return Estimate(
        low=assumed.start[0] + work / (fast * cores),
        high=assumed.start[1] + work / (slow * cores),
        basis=f"{basis}, {cores} of them" if counts_cores else basis,
    )
