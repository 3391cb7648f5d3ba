"""The set-up script `./nexusmix` runs with a fake Python; nothing is downloaded."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assembler.demo import seeds
from assembler.demo.demo_seed import DemoSeed

SCRIPT = Path(__file__).parents[1] / "nexusmix"

# A fake interpreter, pip, uv and installed program. A file `failing` in its folder makes uv fail.
# The program writes its environment to `heard`, and `calls` lists all calls of the interpreter.
INTERPRETER = """#!/bin/sh
echo "$*" >>"$STAND_IN_CALLS"
case "$*" in
    -c*) echo "${STAND_IN_VERSION:-3.11}" ;;
    "-m venv"*)
        mkdir -p "$4/bin"
        cp "$0" "$4/bin/python"
        printf '#!/bin/sh\\necho "started with $*"\\nenv >"$STAND_IN_HEARD"\\n' > "$4/bin/nexusmix"
        chmod +x "$4/bin/nexusmix" ;;
    *"pip config get"*) exit 1 ;;
    *"uv pip sync"*) ! [ -e "$STAND_IN_FAILING" ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    (folder / "requirements").mkdir()
    for name in ("run", "gpu", "ray", "demo-qwen", "demo-gemma3", "tests", "lint", "bench", "docs"):
        (folder / "requirements" / f"{name}.lock").write_text(f"{name}-package==1\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER)
    interpreter.chmod(0o755)
    return folder


def start(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHON": str(checkout.parent / "python"),
        "STAND_IN_FAILING": str(checkout.parent / "failing"),
        "STAND_IN_CALLS": str(checkout.parent / "calls"),
        "STAND_IN_HEARD": str(checkout.parent / "heard"),
        **env,
    }
    command = [str(checkout / "nexusmix"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def installed(checkout: Path) -> str:
    """Return the names of the locks that are installed in the environment."""
    return (checkout / ".venv" / "nexusmix.stamp").read_text().splitlines()[1]


def test_first_start_sets_up_and_second_does_not(checkout: Path) -> None:
    first = start(checkout, "status", "--of it")
    second = start(checkout, "status")

    assert "environment ready" in first.stderr
    assert first.stdout == "started with status --of it\n"
    assert second.stdout == "started with status\n"
    assert second.stderr == ""


def test_starts_side_by_side_set_up_once(checkout: Path) -> None:
    with ThreadPoolExecutor() as threads:
        started = list(threads.map(lambda _: start(checkout, "status"), range(4)))

    assert [done.stdout for done in started] == ["started with status\n"] * 4
    assert sum("environment ready" in done.stderr for done in started) == 1


def test_changed_lock_is_installed_into_the_same_environment(checkout: Path) -> None:
    start(checkout)
    (checkout / "requirements" / "run.lock").write_text("run-package==2\n")
    again = start(checkout)

    assert "environment ready" in again.stderr
    assert "making" not in again.stderr


def test_interrupted_set_up_is_repaired(checkout: Path) -> None:
    failing = checkout.parent / "failing"
    failing.touch()
    broken = start(checkout)
    failing.unlink()
    repaired = start(checkout)

    assert broken.returncode == 1
    assert "a download failed" in broken.stderr
    assert "making" in repaired.stderr
    assert "environment ready" in repaired.stderr


def test_wrong_python_is_named(checkout: Path) -> None:
    refused = start(checkout, STAND_IN_VERSION="3.9")

    assert refused.returncode == 1
    assert "Python 3.11 is needed" in refused.stderr
    assert "is 3.9" in refused.stderr


def test_only_packages_that_run_are_installed(checkout: Path) -> None:
    start(checkout, "up")

    assert installed(checkout) == "run"
    calls = (checkout.parent / "calls").read_text().splitlines()
    [sync] = [call for call in calls if "pip sync" in call]
    assert [Path(word).name for word in sync.split() if word.endswith(".lock")] == ["run.lock"]


def test_chores_add_their_packages_permanently(checkout: Path) -> None:
    start(checkout, "docs")
    assert installed(checkout) == "run docs"
    start(checkout, "bench", "assembly")
    assert installed(checkout) == "run tests bench docs"
    assert start(checkout, "status").stderr == ""
    start(checkout, "test")
    assert installed(checkout) == "run ray tests lint bench docs"


def test_ray_is_added_for_its_launcher(checkout: Path) -> None:
    start(checkout, "status", NEXUSMIX_LAUNCHER="ray")
    assert installed(checkout) == "run ray"
    assert start(checkout, "status").stderr == ""


@pytest.mark.parametrize("option", [["--family", "{}"], ["--family={}"]])
@pytest.mark.parametrize("seed", [s for s in seeds.SEEDS.values() if s is not seeds.DEFAULT])
def test_the_seed_of_a_family_is_added_for_its_demo(
    checkout: Path, option: list[str], seed: DemoSeed
) -> None:
    start(checkout, "demo", "--exit")
    assert installed(checkout) == "run"
    words = [word.format(seed.name) for word in option]
    if seed.terms:
        start(checkout, "demo", *words)
        assert installed(checkout) == "run"
        words.append("--accept-license")
    start(checkout, "demo", *words, "--exit")
    assert installed(checkout) == f"run {seed.extra}"
    start(checkout, "test")
    assert installed(checkout) == f"run ray tests lint bench docs {seed.extra}"


def test_the_lock_for_gpus_is_chosen_by_name(checkout: Path) -> None:
    start(checkout, "status", NEXUSMIX_LOCK="gpu")
    assert installed(checkout) == "gpu"
    refused = start(checkout, NEXUSMIX_LOCK="requirements-cuda.lock")
    assert refused.returncode == 1
    assert "NEXUSMIX_LOCK is run or gpu" in refused.stderr


def test_chores_get_their_arguments(checkout: Path) -> None:
    start(checkout, "test", "-k", "two words", "-m", "slow")
    calls = (checkout.parent / "calls").read_text()
    assert calls.endswith("-m tests.chores test -k two words -m slow\n")


def test_help_lists_chores_beside_commands(checkout: Path) -> None:
    helped = start(checkout, "--help")
    assert helped.stdout.startswith("started with --help\n")
    assert "In a checkout also:" in helped.stdout
    assert "  docs " in helped.stdout
    assert start(checkout, "up", "--help").stdout == "started with up --help\n"


def test_compiled_python_files_are_kept(checkout: Path) -> None:
    start(checkout, PYTHONDONTWRITEBYTECODE="1", OTHER="1")
    heard = (checkout.parent / "heard").read_text()
    assert "OTHER=1\n" in heard
    assert "PYTHONDONTWRITEBYTECODE" not in heard
