"""The set-up script `./nexusmix`, with a stand-in for Python: nothing is downloaded here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "nexusmix"

# Plays the interpreter, pip, uv and the installed program; `failing` in its folder fails uv, the
# program leaves its environment in `heard`.
INTERPRETER = """#!/bin/sh
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
    (folder / "requirements.lock").write_text("one==1\n")
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
        "STAND_IN_HEARD": str(checkout.parent / "heard"),
        **env,
    }
    command = [str(checkout / "nexusmix"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_first_start_sets_up_and_second_does_not(checkout: Path) -> None:
    first = start(checkout, "status", "--of it")
    second = start(checkout, "status")

    assert "environment ready" in first.stderr
    assert first.stdout == "started with status --of it\n"
    assert second.stdout == "started with status\n"
    assert second.stderr == ""


def test_changed_lock_is_installed_into_the_same_environment(checkout: Path) -> None:
    start(checkout)
    (checkout / "requirements.lock").write_text("one==2\n")
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


def test_ray_is_installed_where_it_is_needed_and_stays(checkout: Path) -> None:
    (checkout / "requirements-ray.lock").write_text("ray==1\n")
    stamp = checkout / ".venv" / "nexusmix.stamp"

    start(checkout, "status")
    assert "ray==1" not in stamp.read_text()
    start(checkout, "status", NEXUSMIX_LAUNCHER="ray")
    assert "ray==1" in stamp.read_text()
    (checkout / ".venv/lib/python3.11/site-packages/ray").mkdir(parents=True)
    assert start(checkout, "status").stderr == ""


def test_the_tests_need_ray(checkout: Path) -> None:
    (checkout / "requirements-ray.lock").write_text("ray==1\n")
    start(checkout, "test")
    assert "ray==1" in (checkout / ".venv" / "nexusmix.stamp").read_text()


def test_other_lock_is_chosen_by_name(checkout: Path) -> None:
    (checkout / "requirements-cuda.lock").write_text("two==2\n")

    assert (
        "requirements-cuda.lock" in start(checkout, NEXUSMIX_LOCK="requirements-cuda.lock").stderr
    )
    assert "there is no" in start(checkout, NEXUSMIX_LOCK="requirements-none.lock").stderr


def test_what_python_compiles_is_kept(checkout: Path) -> None:
    start(checkout, PYTHONDONTWRITEBYTECODE="1", OTHER="1")
    heard = (checkout.parent / "heard").read_text()
    assert "OTHER=1\n" in heard
    assert "PYTHONDONTWRITEBYTECODE" not in heard
