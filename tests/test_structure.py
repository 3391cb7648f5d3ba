"""Every module has a test and a size that can be read; every folder says what it is for.

`tests/PATH/test_NAME.py` tests the module `PATH/NAME.py`. Where a module is tested by a neighbor,
the docstring of that test names it in its last paragraph: `Covers: NAME, NAME.` A module of another
folder stands there with its full name. A module of constants alone needs no test.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("registry", "engine", "assembler", "service")
MAX_LINES = 350
MAX_MODULES = 20
COVERS = re.compile(r"^Covers:(.*?)\.?\Z", re.MULTILINE | re.DOTALL)
# They hold no code of their own, or only start what others hold.
NOT_TESTED = {"__init__", "__main__"}
# The demo alone uses them. It trains for minutes: people run it before they measure.
BY_THE_DEMO = {"service.demo.printing", "service.demo.reports"}

FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
FOLDERS = sorted({path.parent for path in FILES})
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def has_code(path: Path) -> bool:
    """Return whether a module defines any function or class."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text()).body)


MODULES = {name_of(path) for path in FILES if path.stem not in NOT_TESTED}


def named_in(test: Path) -> set[str]:
    """Return the modules that the docstring of a test says it covers, by their full names."""
    docstring = ast.get_docstring(ast.parse(test.read_text())) or ""
    found = COVERS.search(docstring)
    if found is None:
        return set()
    folder = ".".join(test.parent.relative_to(ROOT / "tests").parts)
    names = (name.strip() for name in found[1].split(","))
    return {name if "." in name else f"{folder}.{name}" for name in names}


@cache
def covered() -> dict[str, Path]:
    """Return the test of each module that has one."""
    by_name = {}
    for test in TESTS:
        parts = test.relative_to(ROOT / "tests").with_suffix("").parts
        by_name[".".join([*parts[:-1], parts[-1].removeprefix("test_")])] = test
        by_name |= dict.fromkeys(named_in(test), test)
    return by_name


def test_every_module_has_a_test() -> None:
    with_code = {name_of(path) for path in FILES if has_code(path)}
    missing = sorted((MODULES & with_code) - covered().keys() - BY_THE_DEMO)
    assert not missing, "write a test of this name, or name it where it is covered"


@pytest.mark.parametrize("test", [test for test in TESTS if named_in(test)], ids=short)
def test_what_a_test_covers_is_there(test: Path) -> None:
    assert named_in(test) <= MODULES


def test_exceptions_are_needed() -> None:
    assert MODULES - covered().keys() >= BY_THE_DEMO


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_a_folder_has_few_modules(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if path.stem not in NOT_TESTED]
    assert len(modules) <= MAX_MODULES, "group modules that work together in a sub-package"


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_a_folder_says_what_it_is_for(folder: Path) -> None:
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert docstring, "say in `__init__.py` what lives here and what it may import"


def test_no_module_is_long() -> None:
    counts = {short(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {path: count for path, count in counts.items() if count > MAX_LINES}
