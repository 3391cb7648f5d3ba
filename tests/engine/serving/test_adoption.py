"""A server that an agent has started is found again by what it serves."""

import pytest

from engine.serving import adoption
from engine.serving.agent import Agent
from engine.vllm_server.engine_options import EngineOptions
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from registry.errors import Unavailable
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


def test_a_server_with_options_of_its_own_is_no_servant_of_gates(agent: Agent) -> None:
    deployment_id = request("m", options=EngineOptions(dtype="bfloat16"))
    become_ready(agent, deployment_id)
    served = manifests.load(blob_stores.store(), read(deployment_id).manifest_digest)
    assert adoption.find(served) is None


def test_a_server_is_adopted_with_its_options_only(agent: Agent, launcher: StandInLauncher) -> None:
    deployment_id = request("m", options=EngineOptions(context=128))
    become_ready(agent, deployment_id)
    row = read(deployment_id)
    assert adoption.adopt(row, launcher=launcher).is_ready()
    row.options = EngineOptions(context=64).stored()
    with pytest.raises(Unavailable, match="is not the server of 'm'"):
        adoption.adopt(row, launcher=launcher)
