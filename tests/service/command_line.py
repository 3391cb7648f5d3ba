"""Runs the command line as a process."""

import subprocess
import sys

COMMAND = (sys.executable, "-m", "service.cli")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
