"""A training step whose number selects its behavior; `test_torchrun` runs it in many processes.

- 1: the first process prints the addresses on which any process listens.
- 2: the second process fails.
- 3: the second process is killed.

The other processes wait for each other.
"""

import json
import os
import signal
import sys

import psutil
import torch

from assembler.jobs import step_main
from assembler.training.distributed import process_group
from registry.errors import StepFailed


def act(what: int) -> None:
    with process_group() as world:
        if world.rank == 1 and what == 2:
            raise StepFailed("the second process has a reason")
        if world.rank == 1 and what == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        world.sum(torch.ones(1))
        if world.rank == 0:
            sys.stdout.write(json.dumps(_listening()))
        world.barrier()


def _listening() -> list[str]:
    """Return the listening addresses of the agent and all its descendants.

    A process guard stands between this process and the agent.
    """
    agent = psutil.Process().parents()[1]
    return [
        connection.laddr.ip
        for process in (agent, *agent.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]


if __name__ == "__main__":
    step_main.STEPS["act"] = act
    sys.exit(step_main.main("act", int(sys.argv[1])))
