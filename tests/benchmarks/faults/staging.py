"""Data folders in which a fault is tried, and engines that may be damaged."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from engine.vllm_server import engine_command
from registry.blobs import blob_stores
from registry.blobs.blobs import LocalBlobs
from registry.settings import settings

DAMAGED_SERVER = "tests.benchmarks.faults.served"
# What a gate measures again only for other bytes or other text.
SHARED_CACHES = ("evaluations", "continuations", "noise")


@contextmanager
def own_home(blobs: LocalBlobs, *, caches: Sequence[str] = SHARED_CACHES) -> Iterator[LocalBlobs]:
    """Use a temporary data folder during the block, and yield its store.

    It has links to all blobs of another store, and anything in it may be damaged. Those of `caches`
    are the caches of the usual data folder.
    """
    cache = settings().cache_path
    with TemporaryDirectory(dir=cache, prefix="faults-") as folder:
        home = Path(folder)
        for source in blobs.root.glob("[0-9a-f][0-9a-f]/*"):
            target = home / "blobs" / source.relative_to(blobs.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        with mock.patch.dict(os.environ, {"NEXUSMIX_HOME": folder}):
            _forget()
            for name in caches:
                (cache / name).mkdir(exist_ok=True)
                settings().cache_path.mkdir(exist_ok=True)
                (settings().cache_path / name).symlink_to(cache / name)
            store = blob_stores.store()
            assert isinstance(store, LocalBlobs)
            yield store
        _forget()


@contextmanager
def damaged_engine(fault: str) -> Iterator[None]:
    """Start engines with a fault in their code during the block."""
    command = engine_command.command

    def damaged(*arguments: Any, **fields: Any) -> list[str]:
        words = command(*arguments, **fields)
        at = words.index("engine.vllm_plugin.api_server")
        return [*words[:at], DAMAGED_SERVER, fault, *words[at + 1 :]]

    with mock.patch.object(engine_command, "command", damaged):
        yield


def _forget() -> None:
    settings.cache_clear()
    blob_stores.store.cache_clear()
