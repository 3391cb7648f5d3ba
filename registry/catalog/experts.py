"""Experts and their versions: find and list them, pin references to ready versions, retire."""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Select, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, contains_eager

from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer
from registry.names import parse_ref


def find(session: Session, name: str) -> Expert:
    """Return an expert with its family. Raises NotFound."""
    expert = session.scalar(_experts().where(Expert.name == name))
    if expert is None:
        raise NotFound(f"no expert {name!r}")
    return expert


def find_page(
    session: Session,
    *,
    text: str = "",
    family: str | None = None,
    after: str = "",
    limit: int = 50,
) -> Sequence[Expert]:
    """Return at most `limit` experts with their families, sorted by name, from behind `after`.

    `text` is searched in names and descriptions and ignores case.
    """
    query = _experts().where(Expert.name > after).order_by(Expert.name).limit(limit)
    if text:
        matches = [
            column.icontains(text, autoescape=True) for column in (Expert.name, Expert.description)
        ]
        query = query.where(or_(*matches))
    if family is not None:
        query = query.where(Family.name == family)
    return session.scalars(query).all()


def find_version(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """Return a version in any state, with its expert and family. Raises NotFound."""
    query = _versions().where(Expert.name == expert, ExpertVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise NotFound(f"no version {number} of expert {expert!r}")
    return version


def get_version(session: Session, version_id: int) -> ExpertVersion:
    """Return a version by its id, in any state, with its expert and family. Raises NotFound."""
    version = session.scalar(_versions().where(ExpertVersion.id == version_id))
    if version is None:
        raise NotFound(f"no expert version {version_id}")
    return version


def find_versions(session: Session, expert: str) -> Sequence[ExpertVersion]:
    """Return all versions of an expert with their family, newest first."""
    query = _versions().where(Expert.name == expert).order_by(ExpertVersion.number.desc())
    return session.scalars(query).all()


def find_newest(
    session: Session, names: Collection[str], *, state: VersionState | None = None
) -> Sequence[ExpertVersion]:
    """Return the newest version of each named expert, in one query, ordered by name.

    With `state`, only versions in that state count. Experts without a version are left out.
    """
    query = _versions().where(Expert.name.in_(names))
    if state is not None:
        query = query.where(ExpertVersion.state == state)
    query = query.ext(distinct_on(Expert.name)).order_by(Expert.name, ExpertVersion.number.desc())
    return session.scalars(query).all()


def pin(session: Session, ref: str) -> ExpertVersion:
    """Return the version `name@number`, or for `name` the newest ready one.

    It is returned with its expert and family. Raises InvalidInput if `ref` is not a reference,
    NotFound, and Conflict if no such version is ready.
    """
    name, number = parse_ref(ref)
    if number is not None:
        version = find_version(session, expert=name, number=number)
        if version.state is not VersionState.READY:
            raise Conflict(f"{ref} is {version.state.value}, not ready")
        return version
    find(session, name)
    newest = session.scalar(
        _versions()
        .where(Expert.name == name, ExpertVersion.state == VersionState.READY)
        .order_by(ExpertVersion.number.desc())
        .limit(1)
    )
    if newest is None:
        raise Conflict(f"expert {name!r} has no version that is ready")
    return newest


def pin_all(session: Session, refs: Iterable[str], *, at: str = "experts") -> list[ExpertVersion]:
    """Pin each reference.

    Raises InvalidInput with a pointer below `at` to every reference that cannot be pinned.
    """
    versions: list[ExpertVersion] = []
    problems: list[Problem] = []
    for position, ref in enumerate(refs):
        try:
            versions.append(pin(session, ref))
        except NexusmixError as error:
            problems.append(Problem(pointer(at, position), error.detail))
    if problems:
        raise InvalidInput("not all experts can be used", problems=tuple(problems))
    return versions


def ref_of(version: ExpertVersion) -> str:
    """Return the pinned reference of a version: `name@number`."""
    return f"{version.expert.name}@{version.number}"


def retire(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """Retire a version: new mixes cannot use it, existing mixes keep it. Raises NotFound."""
    version = find_version(session, expert=expert, number=number)
    version.state = VersionState.RETIRED
    session.flush()
    return version


def _experts() -> Select[Expert]:
    return select(Expert).join(Expert.family).options(contains_eager(Expert.family))


def _versions() -> Select[ExpertVersion]:
    return (
        select(ExpertVersion)
        .join(ExpertVersion.expert)
        .join(Expert.family)
        .options(contains_eager(ExpertVersion.expert).contains_eager(Expert.family))
    )
