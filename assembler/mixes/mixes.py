"""Request, find and cancel mixes. A request becomes a pinned recipe and a queued version.

The committed row is all that a request needs: a worker turns queued rows into workflows.
"""

from collections.abc import Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, contains_eager

from assembler.mixes import job_events, mix_state, previews
from assembler.mixes.new_mix import MixSpec, ResolvedRequest
from assembler.recipes.recipe import Recipe
from assembler.tables import FINAL_STATES, RETRIED_STATES, Mix, MixState, MixVersion
from engine.serving import deployments
from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts
from registry.catalog.references import Versions, resolve
from registry.database.tables import Family
from registry.errors import Conflict, NotFound


def request(
    session: Session,
    blobs: BlobStore,
    spec: MixSpec,
    *,
    deploy: bool = False,
    preview: bool = False,
) -> MixVersion:
    """Resolve a request, and return the version that `create` finds or makes for it.

    All bytes are read before the first row is written. Raises the errors of `create`.
    """
    return create(session, spec.read(session, blobs), deploy=deploy, preview=preview)


def create(
    session: Session, resolved: ResolvedRequest, *, deploy: bool = False, preview: bool = False
) -> MixVersion:
    """Return the version of a mix with the requested recipe: an existing one, or a new queued one.

    It is served once it is published if `deploy` says so; with `preview` too from its assembly on.
    A version that failed, was cancelled or is parked does not count as existing. Raises
    InvalidInput with all problems at once; for a change whose base is unknown or unfinished,
    NotFound and Conflict.
    """
    recipe = resolved.checked().recipe
    assert resolved.family is not None, "a missing family is a problem, and was refused"
    mix = _mix(session, resolved.name, resolved.family)
    version = find_same(session, mix.name, recipe) or _new(session, mix, recipe)
    if deploy:
        _deploy(session, version, preview=preview)
    job_events.wake(session)
    return version


def get(session: Session, ref: str) -> MixVersion:
    """Return the version that a reference means, with its mix and family; see `resolve`.

    NAME is the newest published version, NAME@NUMBER any version. Raises InvalidInput for a
    malformed reference, NotFound, and Conflict if no version of NAME is published.
    """
    return resolve(session, ref, VERSIONS)


def newest(session: Session, name: str) -> MixVersion:
    """Return the newest version of a mix in any state. Raises NotFound."""
    found = _versions().where(Mix.name == name).order_by(MixVersion.number.desc()).limit(1)
    version = session.scalar(found)
    if version is None:
        raise NotFound(f"no mix {name!r}")
    return version


def is_published(session: Session, name: str) -> bool:
    """Tell whether a mix has a published version, which NAME then means."""
    found = VERSIONS.of(name).where(VERSIONS.usable)
    return session.scalar(found.limit(1)) is not None


def find_same(session: Session, name: str, recipe: Recipe) -> MixVersion | None:
    """Return the newest version of a mix with this recipe that is made or being made."""
    return session.scalar(
        _versions()
        .where(
            Mix.name == name,
            MixVersion.recipe_digest == recipe.digest,
            MixVersion.state.not_in(RETRIED_STATES),
        )
        .order_by(MixVersion.number.desc())
        .limit(1)
    )


def find_page(
    session: Session, *, before: int | None = None, limit: int = 50
) -> Sequence[MixVersion]:
    """Return one page of versions, newest first, all older than the version with id `before`."""
    query = _versions().order_by(MixVersion.id.desc()).limit(limit)
    if before is not None:
        query = query.where(MixVersion.id < before)
    return session.scalars(query).all()


def cancel(session: Session, ref: str) -> MixVersion:
    """Cancel a version; its running step ends at once. Cancelling again changes nothing.

    Raises NotFound, and Conflict if the version has succeeded or failed.
    """
    mix_state.finish(session, get(session, ref).id, state=MixState.CANCELLED)
    # Read again: locking the row has dropped its mix.
    version = get(session, ref)
    if version.state is not MixState.CANCELLED:
        raise Conflict(f"{ref} is {version.state} and can no longer be cancelled")
    return version


def retry(session: Session, ref: str) -> MixVersion:
    """Go on with a version that failed, was cancelled or is parked, from its last good step.

    Retrying a version that goes on changes nothing. Raises NotFound, and Conflict if the version
    has succeeded or was refused by its gate.
    """
    mix_state.retry(session, get(session, ref).id)
    job_events.wake(session)
    return get(session, ref)


def ref_of(version: MixVersion) -> str:
    """Return `name@number`."""
    return f"{version.mix.name}@{version.number}"


def _mix(session: Session, name: str, family: Family) -> Mix:
    """Return the mix of that name, made if necessary, locked so that version numbers are unique."""
    session.execute(insert(Mix).values(name=name, family_id=family.id).on_conflict_do_nothing())
    mix = session.scalars(select(Mix).where(Mix.name == name).with_for_update()).one()
    if mix.family_id != family.id:
        # Another request has made it since this one was checked.
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
    job_events.record_trace(session, version.job_id)
    return version


def _deploy(session: Session, version: MixVersion, *, preview: bool) -> None:
    """Serve the version under the mix's name: now if it is published, otherwise once it is."""
    version.deploy = True
    version.preview = version.preview or preview
    if version.artifact_id is not None and version.state in FINAL_STATES:
        artifact = artifacts.get(session, version.artifact_id)
        deployments.request(session, artifact, model=version.mix.name, ref=ref_of(version))
    previews.request(session, version)
    session.flush()


def _versions() -> Select[MixVersion]:
    return (
        select(MixVersion)
        .join(MixVersion.mix)
        .join(Mix.family)
        .options(contains_eager(MixVersion.mix).contains_eager(Mix.family))
    )


VERSIONS = Versions(
    noun="mix",
    of=lambda name: _versions().where(Mix.name == name),
    number=MixVersion.number,
    usable=MixVersion.artifact_id.is_not(None),
    usable_word="published",
    describe=lambda version: (
        f"its newest, {ref_of(version)}, is {version.state.value};"
        " NAME@NUMBER names a version that is not published"
    ),
)
