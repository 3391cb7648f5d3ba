"""Python that runs on a full disk: a file system of 1 MiB, seen by one child alone, so that nothing
is left to unmount."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path) -> str:
    """What `code` prints; the small disk is at `folder`, which is its first argument.

    Skips the test where nobody may mount one.
    """
    isolated = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    shell = 'mount -t tmpfs -o size=1m tmpfs "$2" && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        [*isolated, "sh", "-c", shell, sys.executable, code, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
        pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
