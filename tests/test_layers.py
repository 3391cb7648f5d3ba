"""Tests of imports: they point down, have no cycle, and keep light processes light.

The last tests check that only one function commits to the database.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["registry", "engine", "assembler", "service"]  # lowest first
# Sub-packages and top modules of each package, lowest first. Those in one string do not import each
# other.
ROOMS = {
    "registry": (
        "errors",
        "names database_address licenses logs cpu_features folders private_files texts tracing"
        " request_limits engine_limits origins",
        "settings",
        "bounded_json disk",
        "bases database blobs",
        "checkpoints",
        "imports",
        "ingest catalog",
        "fetching",
    ),
    "engine": (
        "threads vllm_build launch divergence",
        "gates",
        "compression",
        "vllm_plugin",
        "vllm_server",
        "serving",
    ),
    "assembler": (
        "tables content_cache compute_dtype progress time_limit tokenizer_file"
        " transformers_without_torch",
        "recipes network stock",
        "training",
        "routing",
        "assembly",
        "compression evaluation",
        "mixes",
        "planning",
        "demo",
        "jobs",
    ),
    "service": (
        "error_codes json_schemas quantities assignments completion_limits home tables scopes",
        "schemas key_format",
        "sessions",
        "errors keys",
        "reports housekeeping",
        "web",
        "api ui",
        "gateway",
        "app",
        "client",
        "terminal",
        "runtime",
        "demo",
        "cli",
    ),
}
# Libraries that take seconds or much memory to load, and modules of other processes.
NOT_IN_THE_WEB_PROCESS = (
    "torch",
    "vllm",
    "transformers",
    "ray",
    "rich",
    "typer",
    "openai",
    "service.runtime",
    "registry.database.postgres",
)
HEAVY = ("torch", "vllm", "transformers", "ray")
# Packages and modules that run in light processes.
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
    # An assembly should take seconds.
    "assembler.jobs.step_main",
    "assembler.jobs.pipeline",
    "assembler.jobs.workflows",
)


def sources(package: str) -> list[Path]:
    """Return the Python files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_packages(path: Path) -> set[str]:
    """Return the top packages that a file imports. Relative imports are an error."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: import absolutely"
            assert node.level == 0, f"{path}: import absolutely"
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@cache
def modules() -> dict[str, Path]:
    """Return the files of all modules by module name."""
    return {module_name(path): path for layer in LAYERS for path in sources(layer)}


def imports(source: str, known: Callable[[str], bool]) -> set[str]:
    """Return the `known` modules that a program imports, also in functions and for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if known(name) else node.module for name in inner}
    return set(filter(known, found))


@cache
def import_graph() -> dict[str, set[str]]:
    """Return the modules of this project that each module imports."""
    return {
        name: imports(path.read_text(), modules().__contains__) - {name}
        for name, path in modules().items()
    }


def ranks(package: str) -> dict[str, int]:
    """Return the rank of each room of a package; 0 is the lowest."""
    return {room: rank for rank, row in enumerate(ROOMS[package]) for room in row.split()}


def upward(package: str, graph: dict[str, set[str]]) -> Iterator[str]:
    """Yield the imports inside a package that do not lead to a lower room."""
    rank = ranks(package)
    for name, imported in graph.items():
        for other in imported:
            pair = [each.split(".") for each in (name, other)]
            if any(len(parts) < 2 or parts[0] != package for parts in pair):
                continue
            room, other_room = pair[0][1], pair[1][1]
            if room != other_room and rank[room] <= rank[other_room]:
                yield f"{name} imports {other}"


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of an import cycle in order; return nothing without a cycle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names: list[str] = error.args[1]
        return names
    return []


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer: str) -> None:
    above = {*LAYERS[LAYERS.index(layer) + 1 :], "migrations", "tests"}
    if layer == "service":
        above.remove("migrations")  # the supervisor migrates before it starts processes
    for path in sources(layer):
        upward = above & imported_packages(path)
        assert not upward, f"{path.relative_to(ROOT)} imports {upward}: move what it needs down"


@pytest.mark.parametrize("package", LAYERS)
def test_rooms_point_down(package: str) -> None:
    rooms = {name.split(".")[1] for name in modules() if name.startswith(f"{package}.")}
    assert rooms == set(ranks(package)), "list every sub-package in ROOMS, in its place"
    found = sorted(upward(package, import_graph()))
    assert not found, f"{found}: move the definition that is needed to the lower room"


def test_imports_have_no_cycle() -> None:
    found = cycle(import_graph())
    assert not found, f"{' -> '.join(found)}: move what they share to a module of its own"


def test_an_upward_import_and_a_cycle_are_found() -> None:
    source = "def later():\n    from registry.catalog import experts\n"
    imported = imports(source, lambda name: name == "registry.catalog.experts")
    graph = {"registry.blobs.blobs": imported, "registry.catalog.experts": {"registry.blobs.blobs"}}
    assert list(upward("registry", graph)) == [
        "registry.blobs.blobs imports registry.catalog.experts"
    ]
    assert set(cycle(graph)) == graph.keys()


def test_the_web_process_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        # structlog and httpx use rich if it is installed. Here a module that needs it fails.
        "sys.modules['rich'] = None\n"
        "import service.app\n"
        "print(*(name for name in sys.argv[1:] if sys.modules.get(name)))\n"
    )
    command = [sys.executable, "-c", code, *NOT_IN_THE_WEB_PROCESS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert not loaded, f"service.app reaches {loaded}: import it where it is used, or move it"


def test_light_modules_stay_light() -> None:
    modules = [
        module_name(path)
        for layer in LAYERS
        for path in sources(layer)
        if module_name(path).startswith(tuple(f"{light}." for light in LIGHT))
        or module_name(path) in LIGHT
    ]
    # One process imports them one by one, so that the message names the first heavy module.
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
    """Return whether a program uses an attribute `commit` of any object."""
    return any(
        isinstance(node, ast.Attribute) and node.attr == "commit"
        for node in ast.walk(ast.parse(source))
    )


def test_one_module_commits() -> None:
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
