"""Run Python code with a disk of 1 MiB.

Only the child process sees the file system, so it need not be unmounted.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str, folder: Path) -> str:
    """Run `code` with a small disk at `folder`, its first argument; return what it prints.

    Skips the test where mounting is not permitted.
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
