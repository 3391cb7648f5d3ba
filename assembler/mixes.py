"""Mixes: a request becomes a recipe with everything pinned, and a version that wants a job.

The row is the wish: whoever commits it is done. A worker turns queued rows into workflows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager

from assembler import jobs, progress
from assembler.embedder import embedder_digest
from assembler.recipe import Recipe
from assembler.tables import FINAL_STATES, Mix, MixState, MixVersion
from engine import deployments
from registry import artifacts, embeddings, experts, families, projections
from registry.errors import Conflict, InvalidInput, NotFound, Problem, pointer
from registry.names import check_name, parse_ref
from registry.tables import ExpertVersion, Family

MIN_EXPERTS = 2


def request(
    session: Session,
    *,
    name: str,
    family: str,
    experts: Sequence[str],
    deploy: bool = False,
    **options: Any,
) -> MixVersion:
    """The version of mix `name` with just this recipe: the one that exists, or a new one, queued.

    `experts` are `name` (its newest version) or `name@number`; the family's newest projection is
    taken; `options` are the other fields of a Recipe. A version that failed or was cancelled does
    not count as existing. Raises InvalidInput with a pointer to every field that is wrong.
    """
    check_name(name, at="/name")
    owner = _family(session, family)
    projection = _projection(session, family)
    versions = _pin(session, experts, family=owner)
    recipe = Recipe(family=family, experts=_refs(versions), projection=projection, **options)
    _check_feasible(recipe)
    mix = _mix(session, name, owner)
    version = _same(session, mix, recipe) or _new(session, mix, recipe)
    if deploy:
        _deploy(session, version)
    jobs.wake(session)
    return version


def get(session: Session, ref: str) -> MixVersion:
    """The version that `name@number` names, or the newest of `name`, with its mix and family.

    Raises InvalidInput for what is no reference, NotFound.
    """
    name, number = parse_ref(ref)
    query = _versions().where(Mix.name == name).order_by(MixVersion.number.desc()).limit(1)
    if number is not None:
        query = query.where(MixVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise NotFound(f"no mix {ref!r}")
    return version


def find_page(
    session: Session, *, before: int | None = None, limit: int = 50
) -> Sequence[MixVersion]:
    """Newest first, those older than the version with id `before` only."""
    query = _versions().order_by(MixVersion.id.desc()).limit(limit)
    if before is not None:
        query = query.where(MixVersion.id < before)
    return session.scalars(query).all()


def cancel(session: Session, ref: str) -> MixVersion:
    """Stop a version; its running step notices at once. Cancelling again changes nothing.

    Raises NotFound, and Conflict when it succeeded or failed already.
    """
    progress.finish(session, get(session, ref).id, state=MixState.CANCELLED)
    # Read again: locking the row forgot its mix.
    version = get(session, ref)
    if version.state is not MixState.CANCELLED:
        raise Conflict(f"{ref} is {version.state} and cannot be cancelled any more")
    return version


def _family(session: Session, name: str) -> Family:
    try:
        return families.find_ready(session, name)
    except (NotFound, Conflict) as error:
        raise _wrong("/family", error.detail) from error


def _projection(session: Session, family: str) -> str:
    try:
        return projections.ref_of(projections.pin(session, family))
    except Conflict as error:
        raise _wrong("/family", f"{error.detail}; ask for one first") from error


def _pin(session: Session, refs: Sequence[str], *, family: Family) -> list[ExpertVersion]:
    if len(refs) < MIN_EXPERTS:
        raise _wrong("/experts", f"needs at least {MIN_EXPERTS} experts, got {len(refs)}")
    versions = experts.pin_all(session, refs)
    if problems := tuple(_problems(session, versions, family)):
        raise InvalidInput("these experts cannot be mixed", problems=problems)
    return versions


def _problems(
    session: Session, versions: Sequence[ExpertVersion], family: Family
) -> Iterator[Problem]:
    first: dict[int, int] = {}
    for position, version in enumerate(versions):
        at, name = pointer("experts", position), version.expert.name
        same = first.setdefault(version.expert_id, position)
        if same != position:
            yield Problem(at, f"{name!r} stands at {pointer('experts', same)} already")
        if version.expert.family_id != family.id:
            other = version.expert.family.name
            yield Problem(at, f"{name!r} is of family {other!r}, not {family.name!r}")
        try:
            embeddings.vector_of(session, version, embedder_digest=embedder_digest())
        except NotFound:
            yield Problem(at, f"the domain of {name!r} is not embedded yet, try again in a moment")


def _check_feasible(recipe: Recipe) -> None:
    num_experts = len(recipe.experts)
    if recipe.experts_per_token > num_experts:
        raise _wrong("/experts_per_token", f"is more than the {num_experts} experts of the mix")
    if recipe.attention != "average":
        raise _wrong("/attention", "cannot be assembled yet, only 'average' can")


def _refs(versions: Sequence[ExpertVersion]) -> tuple[str, ...]:
    return tuple(experts.ref_of(version) for version in versions)


def _mix(session: Session, name: str, family: Family) -> Mix:
    """The mix of that name, made if need be, and locked: versions are numbered one at a time."""
    session.execute(insert(Mix).values(name=name, family_id=family.id).on_conflict_do_nothing())
    mix = session.scalars(select(Mix).where(Mix.name == name).with_for_update()).one()
    if mix.family_id != family.id:
        raise _wrong("/name", f"mix {name!r} exists already in another family")
    return mix


def _same(session: Session, mix: Mix, recipe: Recipe) -> MixVersion | None:
    unusable = (MixState.FAILED, MixState.CANCELLED)
    return session.scalar(
        _versions()
        .where(
            MixVersion.mix_id == mix.id,
            MixVersion.recipe_digest == recipe.digest,
            MixVersion.state.not_in(unusable),
        )
        .order_by(MixVersion.number.desc())
        .limit(1)
    )


def _new(session: Session, mix: Mix, recipe: Recipe) -> MixVersion:
    last = session.scalar(select(func.max(MixVersion.number)).where(MixVersion.mix_id == mix.id))
    number = (last or 0) + 1
    version = MixVersion(
        mix=mix,
        number=number,
        recipe=recipe.model_dump(mode="json"),
        recipe_digest=recipe.digest,
        deploy=False,
        job_id=f"mix-{mix.name}-{number}",
    )
    session.add(version)
    session.flush()
    return version


def _deploy(session: Session, version: MixVersion) -> None:
    """Have it served under the mix's name, now if it is made already, else when it is."""
    version.deploy = True
    if version.artifact_id is not None and version.state in FINAL_STATES:
        artifact = artifacts.get(session, version.artifact_id)
        deployments.request(session, artifact, model=version.mix.name)
    session.flush()


def _versions() -> Select[MixVersion]:
    return (
        select(MixVersion)
        .join(MixVersion.mix)
        .join(Mix.family)
        .options(contains_eager(MixVersion.mix).contains_eager(Mix.family))
    )


def _wrong(at: str, detail: str) -> InvalidInput:
    return InvalidInput("this mix cannot be made", problems=(Problem(at, detail),))
