"""What a request names, looked up and pinned; what cannot be mixed is pointed at."""

from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session

from assembler.embedder import embedders, states_embedder_digest
from registry import embeddings, experts, families, projections
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer
from registry.tables import ExpertVersion, Family, Projection

MIN_EXPERTS = 2
# Of a digest: enough to tell two apart in a sentence.
SHORT = 12


def ready_family(session: Session, name: str) -> Family:
    """Raises InvalidInput."""
    try:
        return families.find_ready(session, name)
    except (NotFound, Conflict) as error:
        raise wrong("/family", error.detail) from error


def newest_projection(session: Session, family: str) -> str:
    """`family@number`. Raises InvalidInput when none is ready, or the newest is outdated."""
    try:
        projection = projections.pin(session, family)
    except Conflict as error:
        raise wrong("/family", f"{error.detail}; ask for one first") from error
    if detail := outdated(projection):
        raise wrong("/family", f"{detail}; ask for a new projection")
    return projections.ref_of(projection)


def outdated(projection: Projection) -> str | None:
    """Why it cannot make rows of the domain embeddings that experts have today; None if it can."""
    today = states_embedder_digest(projection.family.seed_digest)
    if projection.embedder_digest == today:
        return None
    return (
        f"{projections.ref_of(projection)} projects other domain embeddings "
        f"({projection.embedder_digest[:SHORT]}) than are taken today ({today[:SHORT]})"
    )


def all_experts(session: Session, refs: Sequence[str], *, family: Family) -> tuple[str, ...]:
    """`name@number` of each. Raises InvalidInput with a pointer to every one that is unfit."""
    if len(refs) < MIN_EXPERTS:
        raise wrong("/experts", f"needs at least {MIN_EXPERTS} experts, got {len(refs)}")
    versions = experts.pin_all(session, refs)
    if problems := (*_repeated(versions), *_unfit_ones(session, versions, family)):
        raise InvalidInput("these experts cannot be mixed", problems=problems)
    return tuple(experts.ref_of(version) for version in versions)


def one_expert(session: Session, ref: str, *, family: Family, at: str) -> ExpertVersion:
    """Raises InvalidInput pointing to `at`."""
    try:
        version = experts.pin(session, ref)
    except NexusmixError as error:
        raise wrong(at, error.detail) from error
    if details := list(_unfit(session, version, family)):
        raise wrong(at, details[0])
    return version


def wrong(at: str, detail: str) -> InvalidInput:
    return InvalidInput("this mix cannot be made", problems=(Problem(at, detail),))


def _repeated(versions: Sequence[ExpertVersion]) -> Iterator[Problem]:
    first: dict[int, int] = {}
    for position, version in enumerate(versions):
        same = first.setdefault(version.expert_id, position)
        if same != position:
            detail = f"{version.expert.name!r} stands at {pointer('experts', same)} already"
            yield Problem(pointer("experts", position), detail)


def _unfit_ones(
    session: Session, versions: Sequence[ExpertVersion], family: Family
) -> Iterator[Problem]:
    for position, version in enumerate(versions):
        for detail in _unfit(session, version, family):
            yield Problem(pointer("experts", position), detail)


def _unfit(session: Session, version: ExpertVersion, family: Family) -> Iterator[str]:
    name, other = version.expert.name, version.expert.family
    if other.id != family.id:
        yield f"{name!r} is of family {other.name!r}, not {family.name!r}"
    try:
        embeddings.find(session, version, embedders=embedders(family.seed_digest))
    except NotFound:
        yield f"the domain of {name!r} is not embedded yet, try again in a moment"
