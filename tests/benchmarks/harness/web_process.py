"""A web process with an embedded database in a data folder of its own, with a tiny family in it."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import migrations
from assembler.mixes import job_events
from assembler.tables import Mix, MixState, MixVersion
from engine.launch.launcher import LocalLauncher
from engine.serving.tables import Deployment, DeploymentState
from registry.blobs import blob_stores
from registry.catalog import artifacts
from registry.database import db
from registry.database.postgres import EmbeddedPostgres
from registry.errors import Unavailable
from registry.settings import settings
from service import keys
from service.runtime.supervisor import answers, free_port
from tests.assembler import rows

START_SECONDS = 120.0
STOP_SECONDS = 20.0
HOST = "127.0.0.1"
DIGEST = "a" * 64


@dataclass(frozen=True)
class WebProcess:
    """A running web process: its address, its id, and keys that may do everything."""

    address: str
    pid: int
    keys: tuple[str, ...]


@contextmanager
def running(
    *, num_keys: int = 1, limits: Mapping[str, object] | None = None
) -> Iterator[WebProcess]:
    """Run a web process until the block ends. `limits` are settings by name.

    The settings and the database of this process are those of the web process meanwhile.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="nexusmix-web-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        port = free_port(HOST, 0)
        own = {"HOME": folder, "DATABASE_URL": postgres.url, "HOST": HOST, "PORT": port}
        given = own | dict(limits or {})
        variables = {f"NEXUSMIX_{name.upper()}": str(value) for name, value in given.items()}
        stack.enter_context(mock.patch.dict(os.environ, variables))
        _forget()
        stack.callback(_forget)
        migrations.upgrade(postgres.url)
        with db.transaction() as session:
            made = tuple(keys.create_key(session, name=f"key-{n}") for n in range(num_keys))
            blobs = blob_stores.store()
            rows.add_all(session, blobs)
        command = [
            *(sys.executable, "-m", "uvicorn", "--factory", "service.app:create_alone"),
            *(f"--host={HOST}", f"--port={port}", "--ws=none"),
            "--http=service.web.connections:BoundedProtocol",
        ]
        log = folder / "web.log"
        process = LocalLauncher().run(command, env=os.environ, log_path=log)
        stack.callback(process.terminate, STOP_SECONDS)
        address = f"http://{HOST}:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not answers(address):
            if time.monotonic() > deadline or process.poll() is not None:
                raise Unavailable(f"the web process does not answer: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield WebProcess(address, process.pid, made)


def add_running_mix(name: str) -> str:
    """Add a mix that is being made, with an event. Returns the path of its events."""
    with db.transaction() as session:
        mix = Mix(name=name, family_id=1)
        version = MixVersion(
            mix=mix,
            number=1,
            recipe={},
            recipe_digest=DIGEST,
            deploy=False,
            job_id=f"mix-{name}-1",
            state=MixState.FINETUNING,
        )
        session.add(version)
        session.flush()
        job_events.record(session, version.job_id, type="step", message="it has begun", data={})
    return f"/api/v1/mixes/{name}/versions/1/events"


def add_deployment(model: str, *, address: str) -> None:
    """Let an engine at `address` answer as `model`."""
    with db.transaction() as session:
        artifact = artifacts.register(
            session,
            manifest_digest=DIGEST,
            recipe={},
            recipe_digest=DIGEST,
            gate_report_digest=DIGEST,
        )
        row = Deployment(
            artifact_id=artifact.id,
            manifest_digest=DIGEST,
            model=model,
            state=DeploymentState.READY,
            address=address,
        )
        row.ready_at = datetime.now(UTC)
        session.add(row)


def _forget() -> None:
    settings.cache_clear()
    blob_stores.store.cache_clear()
    db.close()
