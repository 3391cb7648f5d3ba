"""Experts and their versions: find, list, pin to a version that is ready, retire."""

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import Select, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, contains_eager

from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer
from registry.names import parse_ref


def find(session: Session, name: str) -> Expert:
    """With its family. Raises NotFound."""
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
    """Experts in the order of their names, those behind `after` only; each with its family.

    `text` is part of a name or a description, in any case of letters.
    """
    query = _experts().where(Expert.name > after).order_by(Expert.name).limit(limit)
    if text:
        found = [
            column.icontains(text, autoescape=True) for column in (Expert.name, Expert.description)
        ]
        query = query.where(or_(*found))
    if family is not None:
        query = query.where(Family.name == family)
    return session.scalars(query).all()


def find_version(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """In any state, with expert and family. Raises NotFound."""
    query = _versions().where(Expert.name == expert, ExpertVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise NotFound(f"no version {number} of expert {expert!r}")
    return version


def get_version(session: Session, version_id: int) -> ExpertVersion:
    """In any state, with expert and family. Raises NotFound."""
    version = session.scalar(_versions().where(ExpertVersion.id == version_id))
    if version is None:
        raise NotFound(f"no expert version {version_id}")
    return version


def find_versions(session: Session, expert: str) -> Sequence[ExpertVersion]:
    """All versions, newest first."""
    query = _versions().where(Expert.name == expert).order_by(ExpertVersion.number.desc())
    return session.scalars(query).all()


def find_newest(
    session: Session, names: Collection[str], *, state: VersionState | None = None
) -> Sequence[ExpertVersion]:
    """Return the newest version of each named expert, in one query, ordered by name.

    With `state`, the newest version in that state. Experts without one are left out.
    """
    query = _versions().where(Expert.name.in_(names))
    if state is not None:
        query = query.where(ExpertVersion.state == state)
    query = query.ext(distinct_on(Expert.name)).order_by(Expert.name, ExpertVersion.number.desc())
    return session.scalars(query).all()


def pin(session: Session, ref: str) -> ExpertVersion:
    """The version that `name@number` names, or the newest ready one of `name`.

    It comes with expert and family. Raises InvalidInput for what is no reference, NotFound, and
    Conflict when the version is not ready.
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
    """Pin each; raises InvalidInput with a pointer to every reference that cannot be pinned."""
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
    """The pinned reference: `name@number`."""
    return f"{version.expert.name}@{version.number}"


def retire(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """Take a version out of use for new mixes; those that have it keep it. Raises NotFound."""
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
