"""Imports point down the stack, light processes stay light, and there is one commit."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["registry", "engine", "assembler", "service"]  # lowest first
HEAVY = ("torch", "vllm", "transformers", "ray")
# Whole packages, and the modules of the others that run in light processes.
LIGHT = (
    "registry",
    "service",
    "engine.serving.agent",
    "engine.vllm_plugin.plugin",
    "engine.serving.deployments",
    "engine.launch.launcher",
    "assembler.jobs.worker",
    "assembler.mixes.mixes",
    "assembler.recipes.recipe",
    # An assembly, which should take seconds.
    "assembler.jobs.step_main",
    "assembler.jobs.pipeline",
    "assembler.jobs.workflows",
)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: import absolutely"
            assert node.level == 0, f"{path}: import absolutely"
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer: str) -> None:
    above = {*LAYERS[LAYERS.index(layer) + 1 :], "migrations", "tests"}
    if layer == "service":
        above.remove("migrations")  # the supervisor migrates before it starts anything
    for path in sources(layer):
        upward = above & imported_packages(path)
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}: move what it needs down"


def test_light_modules_stay_light() -> None:
    modules = [
        module_name(path)
        for layer in LAYERS
        for path in sources(layer)
        if module_name(path).startswith(tuple(f"{light}." for light in LIGHT))
        or module_name(path) in LIGHT
    ]
    # One process, module by module, so that the message names the first that is heavy.
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = {set(HEAVY)} & set(sys.modules)\n"
        "    assert not heavy, f'{name} reaches {heavy}: import it where it is used'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def commits(source: str) -> bool:
    """Return whether a program takes the method `commit` of anything, whatever it is called."""
    return any(
        isinstance(node, ast.Attribute) and node.attr == "commit"
        for node in ast.walk(ast.parse(source))
    )


def test_one_commit() -> None:
    committing = {
        str(path.relative_to(ROOT))
        for layer in LAYERS
        for path in sources(layer)
        if commits(path.read_text())
    }
    assert committing == {"registry/database/db.py"}, "use `with db.transaction() as session:`"


@pytest.mark.parametrize(
    "source", ["a.b().commit()", "end = session.commit", "(await s).commit ()"]
)
def test_a_commit_is_found(source: str) -> None:
    assert commits(source)
    assert not commits(f"# {source}\ntext = {source!r}\ncommit(session)")
