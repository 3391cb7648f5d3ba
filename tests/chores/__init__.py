"""Chores in a checkout, run by `./nexusmix`: checks, benchmarks, documentation, lock files.

It may import anything. Only tests import it.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def succeeds(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> bool:
    """Run a command at the top of the checkout; return whether it ended with 0."""
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0


def say(message: str) -> None:
    """Print a message to stderr."""
    sys.stderr.write(f"nexusmix: {message}\n")
