"""Routes of other hosts: the service there is asked, if it can be reached."""

import pytest
from sqlalchemy import func
from sqlalchemy.orm import Session

from engine.serving import deployments, model_routes
from engine.serving.tables import AgentLease
from engine.vllm_server import endpoints
from registry.blobs.blobs import LocalBlobs
from registry.errors import Unavailable
from tests.engine.factories import make_artifact
from tests.engine.serving.test_deployments import make_ready


@pytest.mark.parametrize("address", ["http://10.0.0.2:8421", None])
def test_a_model_of_another_host_is_asked_there(
    session: Session, blobs: LocalBlobs, address: str | None
) -> None:
    deployment = deployments.request(session, make_artifact(session, blobs), model="m")
    make_ready(session, deployment)
    deployment.host = "elsewhere"
    session.add(
        AgentLease(host="elsewhere", token=1, holder="", expires_at=func.now(), web_address=address)
    )
    session.flush()
    if address is None:
        with pytest.raises(Unavailable, match="whose service listens to itself only"):
            model_routes.resolve(session, "m")
    else:
        assert model_routes.resolve(session, "m").address == endpoints.PEER + address
