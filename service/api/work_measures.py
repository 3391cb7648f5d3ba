"""Metrics of what is made and served. They are read from the database at each scrape."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from prometheus_client import Gauge
from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from assembler.mixes import worker_presence
from assembler.tables import MixState, MixVersion
from engine.serving.tables import Deployment, DeploymentState
from registry.database.tables import (
    ExpertVersion,
    Family,
    Projection,
    ProjectionState,
    VersionState,
)

WORKERS = Gauge("nexusmix_workers", "Workers that run: they check, embed, train and mix.")
FAMILIES = Gauge("nexusmix_families", "Families by the state of their seed.", ["state"])
EXPERTS = Gauge("nexusmix_expert_versions", "Versions of experts by state.", ["state"])
PROJECTIONS = Gauge("nexusmix_projections", "Projections of families by state.", ["state"])
MIXES = Gauge(
    "nexusmix_mix_versions",
    "Versions of mixes by state: `queued` waits for a worker, `parked` for a person.",
    ["state"],
)
GATES = Gauge(
    "nexusmix_gated_mix_versions",
    "Versions of mixes with a gate report, by verdict: `passed` or `failed`.",
    ["verdict"],
)
DEPLOYMENTS = Gauge("nexusmix_deployments", "Deployments by state.", ["state"])


def update(session: Session) -> None:
    """Read the present values."""
    WORKERS.set(worker_presence.count(session))
    for gauge, column, states in (
        (FAMILIES, Family.state, VersionState),
        (EXPERTS, ExpertVersion.state, VersionState),
        (PROJECTIONS, Projection.state, ProjectionState),
        (MIXES, MixVersion.state, MixState),
        (DEPLOYMENTS, Deployment.state, DeploymentState),
    ):
        _set(gauge, _counts(session, column), states)
    gated = MixVersion.gate_report_digest.is_not(None)
    verdict = MixVersion.state == MixState.SUCCEEDED
    query = select(verdict, func.count()).where(gated).group_by(verdict)
    counts = {bool(passed): number for passed, number in session.execute(query)}
    for passed, name in ((True, "passed"), (False, "failed")):
        GATES.labels(name).set(counts.get(passed, 0))


def _counts(session: Session, column: InstrumentedAttribute[Any]) -> dict[Any, int]:
    return {
        state: number
        for state, number in session.execute(select(column, func.count()).group_by(column))
    }


def _set(gauge: Gauge, counts: dict[Any, int], states: Iterable[StrEnum]) -> None:
    """Set a gauge for every state, also those that nothing is in."""
    for state in states:
        gauge.labels(state.value).set(counts.get(state, 0))
