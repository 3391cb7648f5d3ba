"""The one rule for what a reference to a version means, for mixes and experts.

Every command, route and page reads NAME and NAME@NUMBER by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import Session

from registry.errors import Conflict, NotFound
from registry.names import parse_ref

Version = TypeVar("Version")


@dataclass(frozen=True, kw_only=True)
class Versions(Generic[Version]):
    """The versions of one kind of thing, as `resolve` needs them.

    `of` selects all versions of a name. `number` is the column of their numbers. `usable` is the
    condition for those that NAME can mean, and `usable_word` names it. `describe` says what the
    newest version is where NAME means none, and what can be done.
    """

    noun: str
    of: Callable[[str], Select[Version]]
    number: Any
    usable: ColumnElement[bool]
    usable_word: str
    describe: Callable[[Version], str]


def resolve(session: Session, ref: str, versions: Versions[Version]) -> Version:
    """Return the version that `ref` means.

    NAME@NUMBER means that version, in any state. NAME means the newest version that can be used: of
    mixes the newest published, of experts the newest ready. It never means a newer version that
    failed, was refused, or is still being made. Raises InvalidInput if `ref` is not a
    reference, NotFound, and Conflict if NAME has versions but none that can be used.
    """
    name, number = parse_ref(ref)
    found = versions.of(name).order_by(None).order_by(versions.number.desc()).limit(1)
    if number is not None:
        version = session.scalar(found.where(versions.number == number))
        if version is None:
            raise NotFound(f"no version {number} of {versions.noun} {name!r}")
        return version
    version = session.scalar(found.where(versions.usable))
    if version is not None:
        return version
    newest = session.scalar(found)
    if newest is None:
        raise NotFound(f"no {versions.noun} {name!r}")
    raise Conflict(
        f"{versions.noun} {name!r} has no version that is {versions.usable_word};"
        f" {versions.describe(newest)}"
    )
