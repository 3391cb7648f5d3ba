"""A server that an agent has started is found again by what it serves."""

from engine.serving import adoption
from engine.serving.agent import Agent
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from tests import tiny
from tests.engine.stand_in_agents import StandInLauncher, become_ready, read, request, stop


def test_a_ready_server_is_found_by_its_bytes(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m")
    digest = read(deployment_id).manifest_digest
    served = manifests.load(blob_stores.store(), digest)
    assert adoption.find(served) is None
    # The stand-in has the arguments of a server behind its own name.
    address = become_ready(agent, deployment_id)

    found = adoption.find(served)
    assert found is not None
    assert (found.address, found.is_ready()) == (address, True)
    assert adoption.find(tiny.store_manifest(blob_stores.store(), expert=2)) is None
    stop(deployment_id)
    assert adoption.find(served) is None
