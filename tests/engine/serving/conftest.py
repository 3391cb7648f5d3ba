"""An agent whose servers are stand-ins for vLLM."""

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from engine.serving import agent as agents
from engine.serving import running
from engine.serving.agent import Agent
from registry.blobs.blobs import LocalBlobs
from registry.database.tables import Artifact
from tests.engine.factories import make_artifact
from tests.engine.stand_in_agents import (
    StandInLauncher,
)


@pytest.fixture
def launcher() -> Iterator[StandInLauncher]:
    launcher = StandInLauncher()
    yield launcher
    for process in launcher.started:
        process.terminate(1)


@pytest.fixture
def agent(
    database: str, launcher: StandInLauncher, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agent]:
    monkeypatch.setattr(agents, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(running, "DRAIN_SECONDS_MIN", 0.0)
    agent = Agent(launcher=launcher)
    yield agent
    agent.close()


@pytest.fixture
def artifact(session: Session, blobs: LocalBlobs) -> Artifact:
    """Return an artifact that can be deployed."""
    return make_artifact(session, blobs)


@pytest.fixture
def other(session: Session, blobs: LocalBlobs) -> Artifact:
    """Return an artifact with other bytes."""
    return make_artifact(session, blobs, expert=1)
