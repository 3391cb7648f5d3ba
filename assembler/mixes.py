"""Mixes: a request becomes a recipe with everything pinned, and a version that wants a job.

The row is the wish: whoever commits it is done. A worker turns queued rows into workflows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager

from assembler import jobs, pinning, presets, progress
from assembler.pinning import MIN_EXPERTS, wrong
from assembler.recipe import Preset, Recipe
from assembler.tables import FINAL_STATES, Mix, MixState, MixVersion
from engine import deployments
from engine.gates import Policy
from registry import artifacts, experts, projections
from registry.errors import Conflict, InvalidInput, NotFound
from registry.names import check_name, parse_ref
from registry.tables import Family


class Changes(TypedDict, total=False):
    """What a revision changes besides the experts: `name` of the mix, by default the base's own;
    fields of the preset's finetune, and of the base's gates."""

    name: str | None
    finetune: Mapping[str, Any] | None
    gates: Mapping[str, Any] | None
    deploy: bool


def request(
    session: Session,
    *,
    name: str,
    family: str,
    experts: Sequence[str],
    preset: Preset = "nexus",
    assembly: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
    gates: Policy | None = None,
    deploy: bool = False,
) -> MixVersion:
    """The version of mix `name` with just this recipe: the one that exists, or a new one, queued.

    `experts` are `name` (its newest version) or `name@number`; the family's newest projection is
    taken; `assembly` and `finetune` change fields of the preset. A version that failed or was
    cancelled does not count as existing. Raises InvalidInput with a pointer to every field that is
    wrong.
    """
    owner = pinning.ready_family(session, family)
    made = presets.assembly(preset, assembly)
    recipe = Recipe(
        **made.model_dump(),
        family=family,
        experts=pinning.all_experts(session, experts, family=owner),
        projection=pinning.newest_projection(session, family) if made.needs_projection else None,
        finetune=presets.finetune(preset, finetune),
        gates=gates or Policy(),
    )
    if problems := tuple(recipe.contradictions()):
        raise InvalidInput("this mix cannot be made", problems=problems)
    return _version(session, name, recipe, owner=owner, deploy=deploy)


def extend(session: Session, ref: str, *, expert: str, **changes: Unpack[Changes]) -> MixVersion:
    """A version made from the finished mix `ref`, with one expert more.

    The base's own experts keep what they have learned, and are not asked whether they could be
    mixed today: one that was retired since stays. Raises InvalidInput as `request` does, NotFound,
    and Conflict when the base is not finished.
    """
    base, known = base_of(session, ref)
    joining = _joining(session, base, expert, at="/expert")
    return _revise(session, base, (*known.experts, joining), **changes)


def remove(session: Session, ref: str, *, expert: str, **changes: Unpack[Changes]) -> MixVersion:
    """A version made from the finished mix `ref`, without one of its experts; see `extend`."""
    base, known = base_of(session, ref)
    leaving = _member(known, expert)
    staying = tuple(own for own in known.experts if own != leaving)
    if len(staying) < MIN_EXPERTS:
        raise wrong("/expert", f"{leaving} cannot go: a mix has at least {MIN_EXPERTS} experts")
    return _revise(session, base, staying, **changes)


def replace(
    session: Session, ref: str, *, expert: str, by: str, **changes: Unpack[Changes]
) -> MixVersion:
    """A version made from the finished mix `ref`, with `by` in the place of one of its experts.

    `by` may be another version of the same expert; see `extend`.
    """
    base, known = base_of(session, ref)
    leaving = _member(known, expert)
    joining = _joining(session, base, by, at="/by", leaving=leaving)
    members = tuple(joining if own == leaving else own for own in known.experts)
    return _revise(session, base, members, **changes)


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


def ref_of(version: MixVersion) -> str:
    """`name@number`."""
    return f"{version.mix.name}@{version.number}"


def _version(
    session: Session, name: str, recipe: Recipe, *, owner: Family, deploy: bool
) -> MixVersion:
    check_name(name, at="/name")
    mix = _mix(session, name, owner)
    version = _same(session, mix, recipe) or _new(session, mix, recipe)
    if deploy:
        _deploy(session, version)
    jobs.wake(session)
    return version


def base_of(session: Session, ref: str) -> tuple[MixVersion, Recipe]:
    """The finished mix and its recipe. Raises NotFound and Conflict."""
    base = get(session, ref)
    recipe = Recipe.model_validate(base.recipe)
    if base.artifact_id is None:
        raise Conflict(
            f"{ref_of(base)} is {base.state}: only a version that has passed its gate is changed"
        )
    if recipe.preset == "merge":
        raise Conflict(f"{ref_of(base)} is a plain mean, which keeps no expert apart")
    if recipe.projection is not None:
        projection = projections.pin(session, recipe.projection)
        if detail := pinning.outdated(projection):
            raise Conflict(
                f"{ref_of(base)} cannot be changed: {detail}; make the mix anew, of all its experts"
            )
    return base, recipe


def _member(recipe: Recipe, expert: str) -> str:
    """Which of the recipe's experts, pinned, `name` or `name@number` is. Raises InvalidInput."""
    for own in recipe.experts:
        if expert in (own, parse_ref(own)[0]):
            return own
    members = ", ".join(recipe.experts)
    raise wrong("/expert", f"{expert!r} is none of the mix's experts: {members}")


def _joining(
    session: Session, base: MixVersion, ref: str, *, at: str, leaving: str | None = None
) -> str:
    """The expert that joins, pinned. Raises InvalidInput pointing to `at`."""
    version = pinning.one_expert(session, ref, family=base.mix.family, at=at)
    joining = experts.ref_of(version)
    for own in Recipe.model_validate(base.recipe).experts:
        if own == joining:
            raise wrong(at, f"{own} is in the mix already")
        if own != leaving and parse_ref(own)[0] == version.expert.name:
            raise wrong(at, f"{own} is in the mix already; replace it to have another version")
    return joining


def _revise(
    session: Session,
    base: MixVersion,
    members: tuple[str, ...],
    *,
    name: str | None = None,
    finetune: Mapping[str, Any] | None = None,
    gates: Mapping[str, Any] | None = None,
    deploy: bool = False,
) -> MixVersion:
    """It is assembled as the base was, from the base and with its projection."""
    known = Recipe.model_validate(base.recipe)
    policy = known.gates.model_dump() | dict(gates or {})
    revised = {
        "base": ref_of(base),
        "experts": members,
        "finetune": presets.finetune(known.preset, finetune),
        "gates": presets.validated(Policy, policy, at="gates"),
    }
    recipe = known.model_copy(update=revised)
    if problems := tuple(recipe.contradictions()):
        # Its fields are the base's: what fits no longer is the number of experts.
        raise wrong("/expert", f"{problems[0].pointer[1:]} {problems[0].detail}")
    return _version(session, name or base.mix.name, recipe, owner=base.mix.family, deploy=deploy)


def _mix(session: Session, name: str, family: Family) -> Mix:
    """The mix of that name, made if need be, and locked: versions are numbered one at a time."""
    session.execute(insert(Mix).values(name=name, family_id=family.id).on_conflict_do_nothing())
    mix = session.scalars(select(Mix).where(Mix.name == name).with_for_update()).one()
    if mix.family_id != family.id:
        raise wrong("/name", f"mix {name!r} exists already in another family")
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
