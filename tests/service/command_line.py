"""Runs the command line as a process, or in this one."""

import subprocess
import sys

import pytest

from service.cli import app

COMMAND = (sys.executable, "-m", "service.cli")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def run_here(*arguments: str) -> int:
    """Run the command line in this process, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nexusmix", *arguments])
        try:
            app.main()
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
