"""Tests of the structure: modules are short and have a test, folders are small and described.

`tests/PATH/test_NAME.py` tests the module `PATH/NAME.py`. A test may cover other modules too. Then
the last paragraph of its docstring names them: `Covers: NAME, NAME.` A module of another folder
has its full name there. A module of constants needs no test.
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
# Modules without code, or with code that only starts other modules.
NOT_TESTED = {"__init__", "__main__"}
# Only the demo uses them. It trains for minutes, so no test runs it.
BY_THE_DEMO = {"service.demo.printing", "service.demo.reports"}

FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
FOLDERS = sorted({path.parent for path in FILES})
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
# Of these only the size is limited.
OTHER_FILES = [
    path for folder in ("tests", "migrations", "docs") for path in (ROOT / folder).rglob("*.py")
]
ALL_FOLDERS = sorted({path.parent for path in (*FILES, *OTHER_FILES)})


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
    """Return the full names of the modules that the docstring of a test names as covered."""
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
    assert not missing, "write a test of this name, or name the module in the test that covers it"


@pytest.mark.parametrize("test", [test for test in TESTS if named_in(test)], ids=short)
def test_modules_that_a_test_covers_exist(test: Path) -> None:
    assert named_in(test) <= MODULES


def test_exceptions_are_needed() -> None:
    assert MODULES - covered().keys() >= BY_THE_DEMO


@pytest.mark.parametrize("folder", ALL_FOLDERS, ids=short)
def test_a_folder_has_few_modules(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if path.stem not in NOT_TESTED]
    assert len(modules) <= MAX_MODULES, "group modules that work together in a sub-package"


@pytest.mark.parametrize("folder", FOLDERS, ids=short)
def test_a_folder_says_what_it_is_for(folder: Path) -> None:
    init = ast.parse((folder / "__init__.py").read_text())
    assert ast.get_docstring(init), "say in `__init__.py` what lives here and what it may import"
    assert len(init.body) == 1, "`__init__.py` has a docstring and no code"


def test_no_module_is_long() -> None:
    files = (*FILES, *OTHER_FILES)
    counts = {short(path): len(path.read_text().splitlines()) for path in files}
    assert not {path: count for path, count in counts.items() if count > MAX_LINES}
