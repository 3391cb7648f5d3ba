"""Start the server of a deployment."""

from engine.launch.launcher import Launcher
from engine.serving.tables import Deployment
from engine.vllm_server import option_checks, vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs import blob_stores
from registry.catalog import artifacts
from registry.checkpoints import manifests


def start(row: Deployment, *, launcher: Launcher) -> Server:
    """Start the server of a row; return at once.

    Raises RefusedOptions when its options do not fit here, NexusmixError when its bytes are missing
    or were changed, OutOfSpace on a full disk, and OSError.
    """
    store = blob_stores.store()
    if row.artifact is not None:
        artifacts.check_attestation(row.artifact, store)
    manifest, options = manifests.load(store, row.manifest_digest), row.engine_options
    option_checks.check(options, manifest)
    return vllm_process.start(
        manifest,
        blobs=store,
        names=row.names,
        log_path=vllm_process.log_path(row.id),
        options=options,
        launcher=launcher,
    )
