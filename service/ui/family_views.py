"""Families as their page shows them: the seed, the projection, and the command that comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from registry.catalog import experts, projections, unready
from registry.database.tables import Family, Projection, ProjectionState, VersionState
from service.web import projection_progress


@dataclass(frozen=True, kw_only=True)
class FamilyView:
    """A family. `projections` are sentences on the newest projection and on the one in use.

    `command` is None when nothing has to be done before mixes can be made.
    """

    name: str
    state: VersionState
    error: str | None
    num_checks: int
    license: str
    description: str
    created_at: datetime
    kept_until: datetime | None
    projections: tuple[str, ...]
    command: str | None
    can_learn_again: bool


def views(session: Session, families: Sequence[Family]) -> list[FamilyView]:
    """Return families as their page shows them."""
    return [_view(session, family) for family in families]


def _view(session: Session, family: Family) -> FamilyView:
    rows = projections.find_all(session, family=family.name)
    ready = next((row for row in rows if row.state is ProjectionState.READY), None)
    shown = [row for row in rows[:1] if row is not ready]
    sentences = [_sentence(session, row) for row in [*shown, *([ready] if ready else [])]]
    is_checked = family.state is VersionState.READY
    is_learning = bool(shown) and shown[0].state is not ProjectionState.FAILED
    command = f"nexusmix family add FOLDER --name {family.name} --license {family.license}"
    return FamilyView(
        name=family.name,
        state=family.state,
        error=family.error,
        num_checks=family.num_checks,
        license=family.license,
        description=family.description,
        created_at=family.created_at,
        kept_until=unready.until(family),
        projections=tuple(sentences) or ("none",),
        command=command if is_checked and not ready and not is_learning else None,
        can_learn_again=bool(
            is_checked and ready and not is_learning and _has_experts(session, family)
        ),
    )


def _has_experts(session: Session, family: Family) -> bool:
    names = [expert.name for expert in experts.find_page(session, family=family.name, limit=None)]
    return bool(experts.find_newest(session, names, state=VersionState.READY))


def _sentence(session: Session, row: Projection) -> str:
    ref = projections.ref_of(row)
    match row.state:
        case ProjectionState.READY:
            domains = (row.metrics or {}).get("domains", [])
            learned = f", learned from {', '.join(domains)}" if domains else ""
            return f"{ref} ready{learned}"
        case ProjectionState.FAILED:
            return f"{ref} failed: {row.error}"
        case ProjectionState.QUEUED:
            return f"{ref} waits for a worker"
    progress = projection_progress.find(session, row)
    return f"{ref} learning, {progress.percent if progress else 0} %"
