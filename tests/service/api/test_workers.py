"""Whether workers are running, over HTTP."""

from starlette.testclient import TestClient

from assembler.tables import Worker
from registry.database import db


def test_workers_are_counted(client: TestClient) -> None:
    body = {"object": "workers", "running": 0}
    assert client.get("/api/v1/workers").json() == body
    with db.transaction() as session:
        session.add(Worker(executor_id="one"))
    assert client.get("/api/v1/workers").json() == body | {"running": 1}
