"""All that a change must pass."""

import os
import sys
from collections.abc import Sequence

from tests.chores import documentation, say, succeeds
from tests.chores.browser import ensure_browser

# Without arguments: all that a commit should wait for. Many tests wait for processes that they have
# started, so three at a time pay even on two cores. A module stays whole: its tests share servers.
# (`loadgroup` groups nothing with pytest 9.2.) Modules come in the order of `tests/conftest.py`:
# xdist would begin with many tests, however short.
ALL_BUT_LONG = (
    *("-m", "not long", "--numprocesses=3"),
    *("--dist=loadfile", "--no-loadscope-reorder"),
)
# OpenMP's threads wait for each other by spinning, which takes a core from the other process.
SHARING = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def check(pytest_arguments: Sequence[str]) -> bool:
    """Run all checks, even if an earlier one fails; say which failed, and return whether none did.

    Without arguments three processes run all tests but those marked `long`; with arguments pytest
    runs what they choose.
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
