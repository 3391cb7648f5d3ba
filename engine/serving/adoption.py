"""Servers that an agent has started, found again by their rows: by another agent, or by a gate."""

from contextlib import suppress

from sqlalchemy import select

from engine.launch import launchers
from engine.launch.adopted_process import Identity
from engine.launch.launcher import Launcher
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server import vllm_process
from engine.vllm_server.engine_options import DEFAULT
from engine.vllm_server.vllm_process import Server
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.database import db
from registry.errors import NexusmixError, Unavailable
from registry.settings import settings


def adopt(row: Deployment, *, launcher: Launcher) -> Server:
    """Return the server that a row describes. Raises NexusmixError when it is not there."""
    if row.pid is None or row.pid_started is None or row.address is None:
        raise Unavailable("nothing is known of it")
    return vllm_process.adopt(
        Identity(row.pid, row.pid_started),
        address=row.address,
        manifest=manifests.load(blob_stores.store(), row.manifest_digest),
        names=row.names,
        log_path=vllm_process.log_path(row.id),
        launcher=launcher,
        options=row.engine_options,
    )


def find(manifest: Manifest) -> Server | None:
    """Return a server of this host that serves these bytes as a gate does and is ready, or None.

    It belongs to its agent, which may end it at any time. One with options of its own may compute
    other numbers.
    """
    query = select(Deployment).filter_by(
        manifest_digest=manifest.digest,
        state=DeploymentState.READY,
        host=settings().host_name,
        options=DEFAULT.stored(),
    )
    with db.transaction() as session:
        rows = session.scalars(query.order_by(Deployment.id.desc())).all()
    for row in rows:
        with suppress(NexusmixError):
            return adopt(row, launcher=launchers.configured())
    return None
