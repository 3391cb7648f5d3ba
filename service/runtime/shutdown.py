"""Ends the service in order: what has begun is finished, then the engines end.

New requests are refused at once, and jobs stop at once: they go on from their last step. Whoever
still gets an answer keeps the web process and its engine until the answer ends, for as long as the
settings say.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import structlog

from registry.settings import settings
from service.runtime.processes import Child

ROUND_SECONDS = 0.1
# When time is up the engines end, and each answer that they were writing ends with an error. The
# web process has this long to send it.
LAST_WORDS_SECONDS = 10.0

log = structlog.get_logger(__name__)


def stop(*, web: Child, worker: Child, agent: Child, hurry: threading.Event) -> None:
    """Stop the processes in order; kill them once `hurry` is set."""
    web.ask_to_stop()
    worker.ask_to_stop()
    with ThreadPoolExecutor() as pool:
        # Until then the worker has stopped, or is killed.
        pool.submit(worker.stop)
        _wait_for_answers(web, hurry)
        if hurry.is_set():
            log.warning("ending at once")
            list(pool.map(Child.kill, (web, worker, agent)))
            return
        agent.stop()
        web.stop(LAST_WORDS_SECONDS)


def web_limit() -> int:
    """Return after how many seconds the web process itself drops what it still answers."""
    return int(settings().drain_seconds + LAST_WORDS_SECONDS) + 1


def _wait_for_answers(web: Child, hurry: threading.Event) -> None:
    """Return when the web process has answered everything, time is up, or `hurry` is set."""
    give_up_at = monotonic() + settings().drain_seconds
    while web.is_running() and not hurry.wait(ROUND_SECONDS):
        if monotonic() > give_up_at:
            log.warning("time is up for answers", seconds=settings().drain_seconds)
            return
