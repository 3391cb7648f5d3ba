"""Engines that an agent started and nobody knows of: it died before it wrote them down."""

from collections.abc import Collection
from contextlib import suppress

import psutil
import structlog

from engine.launch import keeping
from engine.launch.adopted_process import AdoptedProcess, Identity
from registry.errors import Unavailable

ENTRY = "engine.vllm_plugin.api_server"
STOP_SECONDS = 1.0

log = structlog.stdlib.get_logger(__name__)


def end(known: Collection[int | None]) -> None:
    """End the engines that the keeper has inherited, except those of the process ids `known`."""
    keeper = keeping.keeper_pid()
    if keeper is None:
        return
    for process in psutil.Process(keeper).children():
        with suppress(psutil.Error, Unavailable):
            if process.pid not in known and ENTRY in process.cmdline():
                log.warning("ending an engine that nobody knows", pid=process.pid)
                AdoptedProcess(Identity.of(process.pid), address="").terminate(STOP_SECONDS)
