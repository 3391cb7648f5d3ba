"""Runs a task of `assembler.jobs.offline_tasks`, which needs torch, in a child process."""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assembler.jobs.step_process import environment
from engine.launch.launcher import LocalLauncher, Process
from registry.errors import StepFailed
from registry.settings import settings

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0


def run(*arguments: str, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Run `python -m assembler.jobs.offline_tasks ARGUMENTS` and return its result.

    `on_progress` gets the messages of the child. The child ends when this call is interrupted.
    Raises StepFailed with the child's error.
    """
    log_path = settings().home / "logs" / "preparation" / f"{time.time_ns()}.log"
    command = [sys.executable, "-m", "assembler.jobs.offline_tasks", *arguments]
    process = LocalLauncher().run(command, env=environment(), log_path=log_path)
    try:
        last = _follow(process, log_path, on_progress)
    finally:
        process.terminate(GRACE_SECONDS)
    status = process.poll()
    if status != 0 or "result" not in last:
        reason = last.get("error") or _end(status)
        raise StepFailed(f"{arguments[0]}: {reason} (full log: {log_path})")
    log_path.unlink()
    result: dict[str, Any] = last["result"]
    return result


def _follow(process: Process, log_path: Path, on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Wait for the child, and return the last JSON object that it wrote."""
    last: dict[str, Any] = {}
    with log_path.open() as log:
        running = True
        while running:
            # Look before reading, so that nothing the child wrote before its end is missed.
            running = process.wait(POLL_SECONDS) is None
            for line in log.readlines():
                last = _parsed(line) or last
                if "progress" in last:
                    on_progress(last["progress"])
    return last


def _end(status: int | None) -> str:
    """Say how a child ended that has told no reason."""
    if status == -signal.SIGKILL:
        return "its process was killed, as a machine does that has no memory left"
    if status is not None and status < 0:
        return f"its process was ended by signal {-status}"
    return f"its process ended with status {status}, and the log says why"


def _parsed(line: str) -> dict[str, Any] | None:
    """Return the JSON object in a line; None for other lines, such as warnings of libraries."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
