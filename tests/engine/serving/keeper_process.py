"""A supervisor in small: keeps an agent running, and inherits what a killed agent leaves behind.

`python -m tests.engine.serving.keeper_process FOLDER` starts agents; the word `agent` after it runs
one. With `NEXUSMIX_TESTS_STAND_IN` the agent's servers are stand-ins.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from time import sleep

from engine.launch import keeping
from engine.launch.launcher import LocalLauncher
from engine.serving.agent import Agent
from engine.vllm_server import engine_launcher
from registry import logs
from tests.engine.stand_in_agents import StandInLauncher

STAND_IN = "NEXUSMIX_TESTS_STAND_IN"


def keep(folder: Path) -> None:
    """Run an agent for ever; its process id stands in the file `agent`."""
    keeping.become_keeper()
    command = [sys.executable, "-m", "tests.engine.serving.keeper_process", str(folder), "agent"]
    while True:
        agent = LocalLauncher(leaves_children=True).run(
            command, env=os.environ, log_path=folder / "agent.log"
        )
        while agent.poll() is None:
            keeping.bury([agent.pid])
            sleep(0.05)


def run_agent(folder: Path) -> None:
    logs.configure("agent", level="INFO")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    (folder / "agent").write_text(str(os.getpid()))
    with engine_launcher.preloaded() as launcher:
        Agent(launcher=StandInLauncher() if STAND_IN in os.environ else launcher).run(stopping)


if __name__ == "__main__":
    (run_agent if sys.argv[2:] else keep)(Path(sys.argv[1]))
