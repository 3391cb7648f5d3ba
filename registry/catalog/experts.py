"""Experts and their versions: find and list them, pin references to ready versions, retire."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, or_, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, contains_eager

from registry.catalog.references import Versions, resolve
from registry.database.tables import (
    PENDING_STATES,
    Expert,
    ExpertVersion,
    Family,
    VersionState,
)
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer


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
    limit: int | None = 50,
) -> Sequence[Expert]:
    """Return at most `limit` experts with their families, sorted by name, from behind `after`.

    Without a limit, all of them. `text` is searched in names and descriptions and ignores case.
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
    """Return the ready version that a reference means, with its expert and family; see `resolve`.

    Raises InvalidInput if `ref` is not a reference, NotFound, and Conflict if no such version is
    ready.
    """
    version = resolve(session, ref, VERSIONS)
    if version.state is not VersionState.READY:
        raise Conflict(not_ready(version))
    return version


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


def not_ready(version: ExpertVersion) -> str:
    """Return a sentence on why a version cannot be used, and what its owner can do."""
    reason = f": {version.error}" if version.error else ""
    sentence = f"{ref_of(version)} is {version.state.value}, not ready{reason}"
    match version.state:
        case VersionState.UPLOADING:
            return f"{sentence}; register it again to send the rest"
        case VersionState.FAILED:
            return f"{sentence}; register it again, or retry, when that is mended"
        case VersionState.IMPORTING | VersionState.CHECKING | VersionState.EMBEDDING:
            return f"{sentence}; a running worker ends that within a minute or a few"
    return sentence


def ref_of(version: ExpertVersion) -> str:
    """Return the pinned reference of a version: `name@number`."""
    return f"{version.expert.name}@{version.number}"


def checkpoint_digest(version: ExpertVersion) -> str:
    """Return the digest of a version's manifest. Raises Conflict while it is imported."""
    if version.manifest_digest is None:
        raise Conflict(not_ready(version))
    return version.manifest_digest


def retire(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """Retire a version: new mixes cannot use it, existing mixes keep it. Raises NotFound."""
    version = find_version(session, expert=expert, number=number)
    version.state, version.progress = VersionState.RETIRED, None
    session.flush()
    return version


def mark_imported(
    session: Session,
    version_id: int,
    *,
    manifest_digest: str,
    source: dict[str, Any] | None = None,
    imported_from: str | None = None,
) -> None:
    """Record the checkpoint that a version was imported as; it is checked next.

    `source` is what was found at an address, and `imported_from` the same as a sentence.
    """
    version = _locked(session, version_id)
    if version.state is VersionState.IMPORTING:
        if source is not None:
            version.source, version.imported_from = source, imported_from
        version.manifest_digest, version.progress = manifest_digest, None
        version.state, version.error = VersionState.CHECKING, None
        session.flush()


def report(session: Session, version_id: int, *, progress: str) -> None:
    """Record what is done with a version, and how far that is: its import, or its embedding."""
    version = _locked(session, version_id)
    if version.state in PENDING_STATES:
        version.progress = progress
        session.flush()


def mark_checked(session: Session, version_id: int) -> None:
    """Record that a version was checked; its domain is embedded next."""
    version = _locked(session, version_id)
    if version.state is VersionState.CHECKING:
        version.state, version.error = VersionState.EMBEDDING, None
        version.progress = None
        session.flush()


def mark_embedded(session: Session, version_id: int) -> None:
    """Record that the domain of a version is embedded, which makes it ready.

    The expert takes license and description of its newest ready version.
    """
    version = _locked(session, version_id)
    version.error = version.progress = None
    if version.state is VersionState.EMBEDDING:
        version.state = VersionState.READY
        version.ready_at = version.ready_at or datetime.now(UTC)
        session.flush()
        show_newest(session, version.expert)
    session.flush()


def mark_outdated(session: Session, version_ids: Collection[int]) -> None:
    """Have ready versions embedded again, since other embedders are used today."""
    session.execute(
        update(ExpertVersion)
        .where(ExpertVersion.id.in_(version_ids), ExpertVersion.state == VersionState.READY)
        .values(state=VersionState.EMBEDDING, error=None)
    )


def mark_failed(session: Session, version_id: int, *, error: str) -> None:
    """Record that a version cannot become ready, and why. A retired version only gets the reason.

    A version that is not checked or embedded any more stays as it is.
    """
    version = _locked(session, version_id)
    if version.state in PENDING_STATES:
        version.state, version.error = VersionState.FAILED, error
        version.progress = None
    elif version.state is VersionState.RETIRED:
        version.error = error
    session.flush()


def note(session: Session, version_id: int, *, error: str) -> None:
    """Record why the work on a version is tried again."""
    version = _locked(session, version_id)
    if version.state in PENDING_STATES:
        version.error = error
        session.flush()


def can_retry(version: ExpertVersion) -> bool:
    """Tell whether `retry` does anything: a retired version may have to be embedded again."""
    if version.state is VersionState.RETIRED:
        return version.error is not None
    return version.state is VersionState.FAILED


def retry(session: Session, *, expert: str, number: int) -> ExpertVersion:
    """Check and embed a version that failed once more. Any other version is returned as it is.

    Raises NotFound, and Conflict for a version that is still uploading.
    """
    version = _locked(session, find_version(session, expert=expert, number=number).id)
    if version.state is VersionState.UPLOADING:
        raise Conflict(not_ready(version))
    if version.state is VersionState.FAILED:
        begin_checks(version)
    elif can_retry(version):
        version.error, version.num_retries = None, version.num_retries + 1
    session.flush()
    return version


def begin_checks(version: ExpertVersion) -> None:
    """Have a version checked whose bytes were all sent, after its import if it needs one."""
    if version.state is VersionState.FAILED:
        version.num_retries += 1
    is_imported = version.manifest_digest is not None
    version.state = VersionState.CHECKING if is_imported else VersionState.IMPORTING
    version.error = None


def show_newest(session: Session, expert: Expert) -> None:
    """Give an expert the license and the description of its newest version that is ready."""
    ready = find_newest(session, [expert.name], state=VersionState.READY)
    if ready:
        expert.license, expert.description = ready[0].license, ready[0].description
        session.flush()


def _locked(session: Session, version_id: int) -> ExpertVersion:
    version = get_version(session, version_id)
    session.refresh(version, ["state", "error", "num_retries"], with_for_update=True)
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


VERSIONS = Versions(
    noun="expert",
    of=lambda name: _versions().where(Expert.name == name),
    number=ExpertVersion.number,
    usable=ExpertVersion.state == VersionState.READY,
    usable_word="ready",
    describe=lambda version: not_ready(version),
)
