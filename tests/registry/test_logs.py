"""Log lines of libraries and of our own code are JSON with the name of the process."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from registry import logs
logs.configure("worker", level="INFO")
structlog.get_logger("ours").info("step ended", step="gate")
logging.getLogger("theirs").warning("%s is full", "the disk")
logging.getLogger("theirs").debug("too quiet")
logging.getLogger("httpx").info("GET https://bucket/?signature=secret")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("ours").exception("failed")
"""


def test_lines_are_json_with_process_level_and_logger() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == ""
    ours, theirs, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert {line["process"] for line in (ours, theirs, failed)} == {"worker"}
    assert (ours["event"], ours["step"], ours["level"]) == ("step ended", "gate", "info")
    assert (theirs["event"], theirs["logger"]) == ("the disk is full", "theirs")
    assert "ZeroDivisionError" in failed["exception"]
