"""Compile the lock files: exact versions of all installed packages.

A lock names versions, never the hosts of packages.
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
    """A lock: of extras of the project, or of the packages of an input file.

    `overrides` are files whose versions replace the limits of dependencies. `for_gpus` selects
    torch's build for GPUs.
    """

    name: str
    extras: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    for_gpus: bool = False

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name}.lock"

    @property
    def source(self) -> tuple[str, ...]:
        """The arguments of uv that name the input."""
        if not self.extras:
            return (f"{FOLDER}/{self.name}.in",)
        return ("pyproject.toml", *(word for extra in self.extras for word in ("--extra", extra)))


# Exactly one of them is installed. They differ in torch's build and its dependencies.
ALTERNATIVES = (
    Group("run", extras=("run", "demo"), overrides=("overrides.txt", "overrides-cpu.txt")),
    Group("gpu", extras=("gpu", "demo"), overrides=("overrides.txt",), for_gpus=True),
)
# Any of them may be installed in addition. Each has the versions of all locks before it.
ADDITIONS = (
    Group("ray", extras=("ray",)),
    Group("tests", overrides=("overrides-tests.txt",)),
    *map(Group, ("lint", "bench", "docs")),
    # Seeds of further families of the demo, each of hundreds of megabytes.
    Group("demo-qwen", extras=("demo-qwen",)),
    Group("demo-gemma3", extras=("demo-gemma3",)),
)


def compile_all() -> None:
    """Compile every lock. uv reads the old lock and keeps all versions that still fit.

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
        raise Unavailable(f"{group.path} cannot be compiled, see the output above")
    say(f"compiled {group.path}")


def _sources(group: Group) -> Mapping[str, str]:
    """Return the environment of uv, with the package sources that ./nexusmix has set."""
    environment = dict(os.environ)
    if group.for_gpus:
        # These variables select torch's CPU build: a folder of wheels, or PyTorch's CPU index.
        environment.pop("UV_FIND_LINKS", None)
        environment.pop("UV_TORCH_BACKEND", None)
    return environment
