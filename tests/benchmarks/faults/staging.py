"""Data folders in which a fault is tried, and servers that may be damaged."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from engine.serving import vllm_process
from engine.vllm_plugin import model_folder
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore, LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.settings import settings
from tests.benchmarks.harness.demo_mix import DemoMix

DAMAGED_SERVER = "tests.benchmarks.faults.served"


@contextmanager
def own_home(demo: DemoMix) -> Iterator[LocalBlobs]:
    """Use a temporary data folder during the block, and yield its store.

    It has links to the blobs of the mix, and anything in it may be damaged.
    """
    with TemporaryDirectory(dir=settings().cache_path, prefix="faults-") as folder:
        for digest in demo.digests:
            source = demo.blobs.local_path(digest)
            target = Path(folder) / "blobs" / source.relative_to(demo.blobs.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        with mock.patch.dict(os.environ, {"NEXUSMIX_HOME": folder}):
            _forget()
            store = blob_stores.store()
            assert isinstance(store, LocalBlobs)
            yield store
        _forget()


@contextmanager
def serving(
    manifest: Manifest,
    store: BlobStore,
    *,
    fault: str | None = None,
    folder: Path | None = None,
    threads: int = 1,
) -> Iterator[vllm_process.Server]:
    """Yield a ready server, with a fault in its code or started from an unchecked folder."""
    command = vllm_process.command

    def damaged(*arguments: Any, **fields: Any) -> list[str]:
        words = command(*arguments, **fields)
        if fault is None:
            return words
        at = words.index("engine.vllm_plugin.api_server")
        return [*words[:at], DAMAGED_SERVER, fault, *words[at + 1 :]]

    def materialized(*arguments: Any, **fields: Any) -> Path:
        return folder or model_folder.materialize(*arguments, **fields)

    log_path = settings().home / "server.log"
    with (
        mock.patch.object(vllm_process, "command", damaged),
        mock.patch.object(vllm_process, "materialize", materialized),
        mock.patch.dict(os.environ, {"OMP_NUM_THREADS": str(threads)}),
        vllm_process.serving(manifest, blobs=store, log_path=log_path) as running,
    ):
        running.wait_ready()
        yield running


def _forget() -> None:
    settings.cache_clear()
    blob_stores.store.cache_clear()
