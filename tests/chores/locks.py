"""The lock files: exact versions of all that is installed.

A lock names versions, never the hosts that packages come from.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from registry.errors import Unavailable
from tests.chores import say, succeeds

FOLDER = "requirements"


@dataclass(frozen=True)
class Group:
    """What is locked together: extras of the project, or the packages of an input file."""

    name: str
    extras: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    on_cards: bool = False

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name}.lock"

    @property
    def source(self) -> tuple[str, ...]:
        if not self.extras:
            return (f"{FOLDER}/{self.name}.in",)
        return ("pyproject.toml", *(word for extra in self.extras for word in ("--extra", extra)))


# One of these is always installed. They differ in what follows from torch's build.
ALTERNATIVES = (
    Group("run", extras=("run", "demo"), overrides=("overrides.txt", "overrides-cpu.txt")),
    Group("gpu", extras=("gpu", "demo"), overrides=("overrides.txt",), on_cards=True),
)
# These are installed beside it, in any selection: each keeps to the versions of all before it.
ADDITIONS = (Group("ray", extras=("ray",)), *map(Group, ("tests", "lint", "bench", "docs")))


def compile_all() -> None:
    """Compile every lock. Versions that still fit stay, as uv reads them from the old lock.

    Raises Unavailable when uv finds no solution or no package source.
    """
    before: tuple[Group, ...] = ALTERNATIVES
    for group in ALTERNATIVES:
        _compile(group)
    for group in ADDITIONS:
        _compile(group, agreeing_with=before)
        before = (*before, group)


def _compile(group: Group, *, agreeing_with: tuple[Group, ...] = ()) -> None:
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", *group.source, "--quiet"),
        *(word for file in group.overrides for word in ("--override", f"{FOLDER}/{file}")),
        *(word for other in agreeing_with for word in ("--constraint", other.path)),
        *("--python-version", "3.11"),
        *("--no-emit-index-url", "--no-emit-find-links"),
        *("--custom-compile-command", "./nexusmix lock", "--output-file", group.path),
    ]
    if not succeeds(command, env=_sources(group)):
        raise Unavailable(f"{group.path} could not be compiled, see above")
    say(f"compiled {group.path}")


def _sources(group: Group) -> Mapping[str, str]:
    """Return the environment with the package sources that ./nexusmix handed over."""
    environment = dict(os.environ)
    if group.on_cards:
        # These choose torch's CPU build: a folder of wheels that has it, or PyTorch's CPU index.
        environment.pop("UV_FIND_LINKS", None)
        environment.pop("UV_TORCH_BACKEND", None)
    return environment
