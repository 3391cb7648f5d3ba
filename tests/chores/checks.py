"""Run all checks that a change must pass."""

import os
import sys
from collections.abc import Sequence

from tests.chores import documentation, say, succeeds
from tests.chores.browser import ensure_browser

# Options of pytest without arguments. Many tests wait for processes that they have started, so
# three test processes are faster even on two cores. One process runs a whole module, because its
# tests share servers. (`loadgroup` has no effect with pytest 9.2.) `tests/conftest.py` sorts the
# modules; xdist itself would start with modules of many tests, even of short ones.
ALL_BUT_LONG = (
    *("-m", "not long", "--numprocesses=3"),
    *("--dist=loadfile", "--no-loadscope-reorder"),
)
# OpenMP threads spin while they wait, which takes a core from the other test processes.
SHARING = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def check(pytest_arguments: Sequence[str]) -> bool:
    """Run all checks, also after a failed one; print the failed ones, return whether all passed.

    Without arguments three processes run all tests except those marked `long`. With arguments,
    pytest runs the tests that they select.
    """
    ensure_browser()
    python = [sys.executable, "-m"]
    commands = {
        "lint": [*python, "ruff", "check"],
        "format": [*python, "ruff", "format", "--check"],
        "types": [*python, "mypy"],
        "docs": documentation.COMMAND,
        "tests": [*python, "pytest", *(pytest_arguments or ALL_BUT_LONG)],
    }
    sharing = {} if pytest_arguments else SHARING
    environment = documentation.QUIET | sharing | os.environ
    failed = [name for name, command in commands.items() if not succeeds(command, env=environment)]
    say(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return not failed
