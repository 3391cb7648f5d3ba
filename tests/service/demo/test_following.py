"""A mix is followed as a stage until it ends, and its steps are measured.

Covers: service.terminal.mix_progress.
"""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from assembler.mixes import mix_state, mixes
from assembler.tables import MixState
from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.errors import StepFailed
from service.client.client import Client
from service.demo import following
from service.schemas.mixes import MixBody
from service.terminal.mix_progress import watch_mix
from service.terminal.stages import Stages
from tests.assembler import rows
from tests.assembler.published import publish


@pytest.fixture
def client(address: str, key: str) -> Iterator[Client]:
    with Client(address, key=key) as client:
        yield client


@pytest.fixture
def mix(client: Client, store: BlobStore) -> MixBody:
    with db.transaction() as session:
        rows.add_all(session, store)
    experts = ["expert-1", "expert-2"]
    return client.request_mix(name="both", family="tiny", experts=experts, finetune={"tokens": 0})


def test_steps_are_timed(client: Client, mix: MixBody, store: BlobStore) -> None:
    with db.transaction() as session:
        mix_state.begin(session, mix.id, step="assemble")
        mix_state.complete(session, mix.id, step="assemble")
        publish(session, store, mixes.get(session, mix.ref))
    stages = Stages(Console(file=io.StringIO()))
    with stages.stage("Mix") as stage:
        made, seconds = following.make(stage, client, mix)
    assert made.state is MixState.SUCCEEDED
    assert list(seconds) == ["assemble"]
    assert stage.result == f"both@1 (assemble {seconds['assemble']:.1f} s)"


def test_a_mix_that_fails_says_why(client: Client, mix: MixBody) -> None:
    with db.transaction() as session:
        mix_state.finish(session, mix.id, state=MixState.FAILED, error="the disk is full")
    stages = Stages(Console(file=io.StringIO()))
    reason = "both@1 failed: the disk is full"
    with stages.stage("Mix") as stage, pytest.raises(StepFailed, match=reason):
        following.make(stage, client, mix)
    with pytest.raises(StepFailed, match=reason):
        watch_mix(client, mix)
