"""Chores of those who change this project: all checks, benchmarks, the locks."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry.errors import NotFound, Unavailable

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "tests" / "benchmarks"

# Of no arguments: what takes longer than all that a commit should wait for is asked for by name.
# Many tests wait for processes that they have started, so three at a time pay even on two cores. A
# module stays whole: its tests share servers. (`loadgroup` groups nothing with pytest 9.2.) Modules
# come in the order of `tests/conftest.py`: xdist would begin with many tests, however short.
ALL_BUT_LONG = (
    *("-m", "not long", "--numprocesses=3"),
    *("--dist=loadfile", "--no-loadscope-reorder"),
)
# OpenMP's threads wait for each other by spinning, which takes a core from the other process.
SHARING = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# The last is bound by what came out of the others.
LOCKS = {
    "requirements-cpu.in": "requirements.lock",
    "requirements-cuda.in": "requirements-cuda.lock",
    "requirements-ray.in": "requirements-ray.lock",
}
# What packages ask for and these environments do not get.
OVERRIDES, CPU_OVERRIDES = "overrides.txt", "overrides-cpu.txt"


def check(pytest_arguments: Sequence[str]) -> bool:
    """Lint, format, types, tests; says which failed. All are run even if an earlier one fails.

    Without arguments tests are run by three processes, all but those marked `long`; with arguments
    as pytest would run them.
    """
    ensure_browser()
    python = [sys.executable, "-m"]
    commands = {
        "lint": [*python, "ruff", "check"],
        "format": [*python, "ruff", "format", "--check"],
        "types": [*python, "mypy"],
        "tests": [*python, "pytest", *(pytest_arguments or ALL_BUT_LONG)],
    }
    environment: Mapping[str, str] = os.environ if pytest_arguments else SHARING | os.environ
    failed = [name for name, command in commands.items() if not _succeeds(command, env=environment)]
    _say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return not failed


def ensure_browser() -> None:
    """Bring Chromium for the tests of the pages: the system's, Debian's, or Playwright's own.

    Without one those tests name what is missing; in CI they fail.
    """
    if find_browser() is not None:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        _say("installing Debian's chromium for the tests of the pages")
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        if _succeeds(["apt-get", "update", "--quiet"]) and _succeeds(install):
            return
    _say("fetching Playwright's chromium for the tests of the pages")
    if not _succeeds([sys.executable, "-m", "playwright", "install", "chromium"]):
        _say("no Chromium could be had: the tests of the pages cannot run")


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def benchmarks() -> list[str]:
    """Those modules and packages of `tests.benchmarks` that can be run, with dashes in their names.

    Raises NotFound without them.
    """
    if not BENCHMARKS.is_dir():
        raise NotFound(f"{ROOT} is no checkout: benchmarks are not installed with the program")
    modules = (p for p in BENCHMARKS.glob("*.py") if "\ndef main(argv: " in p.read_text())
    packages = (path.parent for path in BENCHMARKS.glob("*/__main__.py"))
    return sorted(path.stem.replace("_", "-") for path in (*modules, *packages))


def bench(name: str, arguments: Sequence[str]) -> bool:
    """Run one; says whether it ended well. Raises NotFound for a name that is none."""
    if name not in (names := benchmarks()):
        raise NotFound(f"no benchmark {name!r}; there are {', '.join(names)}")
    module = f"tests.benchmarks.{name.replace('-', '_')}"
    return _succeeds([sys.executable, "-m", module, *arguments])


def lock() -> None:
    """Compile the locks anew; they name versions, never the hosts that packages come from.

    Raises Unavailable when the compiler finds no solution or no package source.
    """
    for source, target in LOCKS.items():
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", source, "--quiet"),
            *(word for name in _overrides(source) for word in ("--override", name)),
            *("--python-version", "3.11"),
            *("--no-emit-index-url", "--no-emit-find-links"),
            *("--custom-compile-command", "./nexusmix lock", "--output-file", target),
        ]
        if not _succeeds(command, env=_sources(source)):
            raise Unavailable(f"{target} could not be compiled, see above")
        _say(f"compiled {target}")


def _overrides(source: str) -> tuple[str, ...]:
    return (OVERRIDES,) if "cuda" in source else (OVERRIDES, CPU_OVERRIDES)


def _sources(source: str) -> Mapping[str, str]:
    """The package sources that ./nexusmix handed over."""
    environment = dict(os.environ)
    if "cuda" in source:
        # These choose torch's CPU build: a folder of wheels that has it, or PyTorch's CPU index.
        environment.pop("UV_FIND_LINKS", None)
        environment.pop("UV_TORCH_BACKEND", None)
    return environment


def _succeeds(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> bool:
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0


def _say(message: str) -> None:
    sys.stderr.write(f"nexusmix: {message}\n")
