"""Agents over the stand-in server: what they start, and how to run their rounds."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from engine.launch import keeping
from engine.launch.adopted_process import AdoptedProcess, Identity
from engine.launch.launcher import LocalLauncher, LocalProcess, Resources
from engine.serving import deployments
from engine.serving.agent import Agent
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server.engine_options import EngineOptions
from registry.blobs import blob_stores
from registry.database import db
from tests.engine.factories import make_artifact

STAND_IN = Path(__file__).parent / "stand_in.py"
State = DeploymentState


class StandInLauncher:
    """Starts the stand-in server where the agent starts vLLM, with the same arguments."""

    def __init__(self) -> None:
        self.started: list[LocalProcess] = []
        self.launcher = LocalLauncher(keeper=keeping.keeper_pid())

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> LocalProcess:
        assert command[1:3] == ["-m", "engine.vllm_plugin.api_server"]
        stand_in_command = [sys.executable, str(STAND_IN), *command[3:]]
        self.started.append(self.launcher.run(stand_in_command, env=os.environ, log_path=log_path))
        return self.started[-1]

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        return self.launcher.adopt(identity, address=address)

    def child_of(self, number: int) -> psutil.Process:
        """Return the stand-in's own process, the child of its process guard."""
        return psutil.Process(self.started[number].pid).children()[0]


def request(model: str, *, expert: int = 0, options: EngineOptions | None = None) -> int:
    with db.transaction() as session:
        artifact = make_artifact(session, blob_stores.store(), expert=expert)
        return deployments.request(session, artifact, model=model, options=options).id


def stop(deployment_id: int) -> None:
    with db.transaction() as session:
        deployments.stop(session, deployments.get(session, deployment_id))


def read(deployment_id: int) -> Deployment:
    with db.transaction() as session:
        return deployments.get(session, deployment_id)


def rounds(agent: Agent, *, until: Callable[[], bool], seconds: float = 30) -> None:
    """Run rounds of the agent until a condition holds, for at most `seconds`."""
    give_up_at = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < give_up_at
        agent.round()


def become_ready(agent: Agent, deployment_id: int) -> str:
    rounds(agent, until=lambda: read(deployment_id).state is State.READY)
    address = read(deployment_id).address
    assert address is not None
    return address
