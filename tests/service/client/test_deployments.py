"""Serving and stopping models with the client library."""

from collections.abc import Iterator

import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving import deployments
from engine.serving.tables import DeploymentState
from engine.vllm_server.engine_options import EngineOptions
from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.errors import Conflict, InvalidInput, NotFound
from service.client import connection
from service.client.client import Client
from service.schemas.deployments import DeploymentBody
from service.schemas.mixes import MixBody
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
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        publish(session, store, mixes.request(session, store, spec))
    return client.mix("both")


def move(deployment: DeploymentBody, state: DeploymentState, **values: object) -> None:
    with db.transaction() as session:
        row = deployments.get(session, deployment.id)
        row.state = state
        for column, value in values.items():
            setattr(row, column, value)


def test_a_mix_that_is_not_published_is_not_served(client: Client, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        mixes.request(session, store, spec)
    with pytest.raises(Conflict, match="both@1 is not published: it is queued"):
        client.deploy(client.mix("both@1"))


def test_a_published_mix_is_served_and_stopped(client: Client, mix: MixBody) -> None:
    own, other = client.deploy(mix), client.deploy(mix, model="other")
    assert [own.model, other.model] == ["both", "other"]
    assert client.deployment_of(mix) == own
    client.undeploy("both")
    states = {body.model: body.state for body in client.deployments()}
    assert states == {"both": DeploymentState.STOPPED, "other": DeploymentState.REQUESTED}
    with pytest.raises(NotFound, match="no model 'both' is deployed"):
        client.undeploy("both")


def test_an_old_deployment_is_found_behind_many_others(
    client: Client, mix: MixBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_ENTRIES", 2)
    client.deploy(mix, model="old")
    for number in range(5):
        client.deploy(mix, model=f"new-{number}")
    assert len(list(client.deployments())) == 6
    client.undeploy("old")
    [old] = client.deployments(model="old")
    assert old.state is DeploymentState.STOPPED


def test_only_the_own_deployment_is_waited_for(client: Client, mix: MixBody) -> None:
    own = client.deploy(mix)
    move(own, DeploymentState.STOPPED)
    other = client.deploy(mix)
    move(other, DeploymentState.READY, address="http://127.0.0.1:1")
    assert client.wait_for_deployment(own).state is DeploymentState.STOPPED
    assert client.wait_for_deployment(other).state is DeploymentState.READY


def test_options_are_sent_and_kept(client: Client, mix: MixBody) -> None:
    made = client.deploy(mix, options={"context": 128})
    assert made.options.context == 128
    assert client.deploy(mix).id == made.id
    assert client.deploy(mix, options={}).options == EngineOptions()
    with pytest.raises(InvalidInput) as refused:
        client.deploy(mix, options={"context": 4096, "tool_parser": "x"})
    assert len(refused.value.problems) == 2
