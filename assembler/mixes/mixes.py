"""Mixes: a request becomes a recipe with everything pinned, and a version that wants a job.

The row is the wish: whoever commits it is done. A worker turns queued rows into workflows.
"""

from collections.abc import Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager

from assembler.mixes import job_events, mix_state
from assembler.mixes.new_mix import MixSpec
from assembler.recipes.recipe import Recipe
from assembler.tables import FINAL_STATES, Mix, MixState, MixVersion
from engine.serving import deployments
from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts
from registry.database.tables import Family
from registry.errors import Conflict, NotFound
from registry.names import parse_ref


def request(
    session: Session, blobs: BlobStore, wish: MixSpec, *, deploy: bool = False
) -> MixVersion:
    """The version with just the recipe that is wished for: the one that exists, or a new one,
    queued.

    A version that failed or was cancelled does not count as existing. Raises InvalidInput with all
    that is wrong; of a revision whose base is unknown or not finished NotFound and Conflict.
    """
    reading = wish.read(session, blobs)
    recipe = reading.checked().recipe
    assert reading.family is not None, "without one there were problems"
    mix = _mix(session, reading.name, reading.family)
    version = find_same(session, mix.name, recipe) or _new(session, mix, recipe)
    if deploy:
        _deploy(session, version)
    job_events.wake(session)
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


def find_same(session: Session, name: str, recipe: Recipe) -> MixVersion | None:
    """The newest version of mix `name` with this recipe that can be used, or may still succeed."""
    unusable = (MixState.FAILED, MixState.CANCELLED)
    return session.scalar(
        _versions()
        .where(
            Mix.name == name,
            MixVersion.recipe_digest == recipe.digest,
            MixVersion.state.not_in(unusable),
        )
        .order_by(MixVersion.number.desc())
        .limit(1)
    )


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
    mix_state.finish(session, get(session, ref).id, state=MixState.CANCELLED)
    # Read again: locking the row forgot its mix.
    version = get(session, ref)
    if version.state is not MixState.CANCELLED:
        raise Conflict(f"{ref} is {version.state} and cannot be cancelled any more")
    return version


def ref_of(version: MixVersion) -> str:
    """`name@number`."""
    return f"{version.mix.name}@{version.number}"


def _mix(session: Session, name: str, family: Family) -> Mix:
    """The mix of that name, made if need be, and locked: versions are numbered one at a time."""
    session.execute(insert(Mix).values(name=name, family_id=family.id).on_conflict_do_nothing())
    mix = session.scalars(select(Mix).where(Mix.name == name).with_for_update()).one()
    if mix.family_id != family.id:
        # Whoever asked first has come between the reading and this.
        raise Conflict(f"mix {name!r} was just made in another family")
    return mix


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
