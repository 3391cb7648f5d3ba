"""Run vLLM servers as the rows of `deployments` request. Run by `python -m engine.serving.agent`.

Each round looks at every live row and its server, and takes one step toward the requested state.
Rounds repeat, so a step that a crash or a lost database interrupted is done in a later round. The
servers die with the agent; the next agent starts them again.
"""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

import httpx
import structlog

from engine.launch import launchers
from engine.launch.launcher import Launcher
from engine.serving import deployments, vllm_process
from engine.serving.pulse import Pulse
from engine.serving.tables import Deployment, DeploymentState
from engine.serving.vllm_process import Server
from registry import logs
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from registry.database import db
from registry.errors import NexusmixError, Unavailable
from registry.settings import settings

log = structlog.stdlib.get_logger(__name__)

ROUND_SECONDS = 0.5
MAX_STARTS = 5
FIRST_PAUSE_SECONDS = 1.0
# A server that has been ready this long was healthy, so its starts are counted from zero again.
HEALTHY_SECONDS = 600.0
# Requests routed just before a server began to drain are still on their way.
DRAIN_SECONDS_MIN = 2.0
STOP_SECONDS = 10.0
# A server that does not work any more is not asked for long.
HUNG_STOP_SECONDS = 1.0


@dataclass
class Running:
    """A server of this agent.

    `since` is when its present state began, in monotonic seconds; `pulse` watches it while it is
    ready.
    """

    server: Server
    since: float = field(default_factory=monotonic)
    pulse: Pulse | None = None
    draining: bool = False

    def check(self) -> None:
        """Raise Unavailable when the server has ended, or has not worked for too long."""
        limit = settings().engine_silence_seconds
        if self.server.process.poll() is not None:
            self.server.is_ready()
        elif self.pulse is not None and self.pulse.silence() > limit:
            raise Unavailable(f"it has written no token for {limit:g} seconds, and was replaced")

    def stop(self, grace: float) -> None:
        """End the server; kill it after `grace` seconds."""
        if self.pulse is not None:
            self.pulse.stop()
        self.server.stop(grace)


class Agent:
    """Starts, watches and stops servers so that they match the deployments."""

    def __init__(self, *, launcher: Launcher | None = None) -> None:
        self._launcher = launcher or launchers.configured()
        self._running: dict[int, Running] = {}
        self._not_before: dict[int, float] = {}

    def run(self, stopping: threading.Event) -> None:
        """Run rounds until `stopping` is set, then stop all servers; a lost database is waited for.

        Call this from the main thread: servers die with the thread that starts them.
        """
        is_reset = False
        try:
            while not stopping.is_set():
                try:
                    if not is_reset:
                        self.reset()
                        is_reset = True
                    self.round()
                except db.OUTAGES as error:
                    log.warning("database does not answer", error=str(error).splitlines()[0])
                stopping.wait(ROUND_SECONDS)
        finally:
            self.close()

    def reset(self) -> None:
        """Request again the deployments whose servers ended with a previous agent."""
        with db.transaction() as session:
            deployments.reset(session)

    def round(self) -> None:
        """Take one step for each live deployment. Raises OperationalError without database."""
        with db.transaction() as session:
            rows = deployments.live(session)
        steps = {
            DeploymentState.REQUESTED: self._start,
            DeploymentState.STARTING: self._await_ready,
            DeploymentState.READY: self._watch,
            DeploymentState.DRAINING: self._drain,
        }
        for row in rows:
            steps[row.state](row)
        for gone in self._running.keys() - {row.id for row in rows}:
            self._stop(gone)

    def close(self) -> None:
        """Stop all servers at the same time, and update their rows if the database answers."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._stop, list(self._running)))
        with suppress(*db.OUTAGES):
            self.reset()

    def _start(self, row: Deployment) -> None:
        """Start a server for a requested deployment, unless it has to pause after a failure."""
        if monotonic() < self._not_before.get(row.id, 0):
            return
        row.num_starts += 1
        # The error that caused this restart stays visible until the server is ready.
        if not self._advance(row, DeploymentState.STARTING, error=row.error):
            return
        try:
            store = blob_stores.store()
            server = vllm_process.start(
                manifests.load(store, row.artifact.manifest_digest),
                blobs=store,
                model=row.model,
                log_path=settings().home / "logs" / "deployments" / f"{row.id}.log",
                launcher=self._launcher,
            )
        except (NexusmixError, OSError) as error:
            row.state = DeploymentState.STARTING
            self._died(row, str(error))
            return
        self._running[row.id] = Running(server)
        log.info("server starts", deployment=row.id, model=row.model, process=server.process.name)

    def _await_ready(self, row: Deployment) -> None:
        """Route to a starting server once it answers; restart it when it is lost or late."""
        running = self._running.get(row.id)
        if running is None:
            self._died(row, "its server was lost")
            return
        try:
            if running.server.is_ready():
                running.server.warm_up()
                with db.transaction() as session:
                    deployments.mark_ready(session, row.id, address=running.server.address)
                log.info(
                    "server is ready", deployment=row.id, seconds=round(monotonic() - running.since)
                )
                running.since, running.pulse = monotonic(), Pulse(running.server)
            elif monotonic() > running.since + vllm_process.START_SECONDS:
                raise Unavailable(f"not ready in time:\n{running.server.log_tail()}")
        except Unavailable as error:
            self._died(row, error.detail)

    def _watch(self, row: Deployment) -> None:
        """Restart a ready server that has ended or hangs."""
        running = self._running.get(row.id)
        if running is None:
            self._died(row, "its server was lost")
            return
        try:
            running.check()
        except Unavailable as error:
            self._died(row, error.detail)

    def _drain(self, row: Deployment) -> None:
        """Stop a server once it has answered all its requests."""
        running = self._running.get(row.id)
        if running is not None:
            if not running.draining:
                running.draining, running.since = True, monotonic()
            if not _is_drained(running):
                return
            self._stop(row.id)
        self._advance(row, DeploymentState.STOPPED)
        log.info("server stopped", deployment=row.id, model=row.model)

    def _died(self, row: Deployment, error: str) -> None:
        """Request a restart after a pause, or give up after MAX_STARTS starts."""
        running = self._running.get(row.id)
        if row.state is DeploymentState.READY and running is not None:
            was_healthy = monotonic() > running.since + HEALTHY_SECONDS
            row.num_starts = 0 if was_healthy else row.num_starts
        gives_up = row.num_starts >= MAX_STARTS
        pause = FIRST_PAUSE_SECONDS * 2 ** max(0, row.num_starts - 1)
        self._not_before[row.id] = monotonic() + pause
        log.warning("server died", deployment=row.id, starts=row.num_starts, gives_up=gives_up)
        next_state = DeploymentState.FAILED if gives_up else DeploymentState.REQUESTED
        # First no more requests are sent there, then those that wait there get their error.
        self._advance(row, next_state, error=error)
        self._stop(row.id, HUNG_STOP_SECONDS)

    def _advance(
        self, row: Deployment, state: DeploymentState, *, error: str | None = None
    ) -> bool:
        """Move the row to `state` if it is still in the state that this round saw."""
        with db.transaction() as session:
            return deployments.advance(
                session, row.id, row.state, state, num_starts=row.num_starts, error=error
            )

    def _stop(self, deployment_id: int, grace: float = STOP_SECONDS) -> None:
        running = self._running.pop(deployment_id, None)
        if running is not None:
            running.stop(grace)


def _is_drained(running: Running) -> bool:
    """Return whether a draining server has no requests left, has used up its time, or has ended.

    A server that does not work any more has nothing to finish.
    """
    seconds = monotonic() - running.since
    if seconds < DRAIN_SECONDS_MIN:
        return False
    if seconds > settings().drain_seconds:
        return True
    try:
        running.check()
        return running.server.num_requests() == 0
    except Unavailable:
        return True
    except httpx.TransportError:
        return False


def main() -> None:
    """Run an agent until SIGTERM or SIGINT."""
    logs.configure("agent", level=settings().log_level)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    Agent().run(stopping)


if __name__ == "__main__":
    main()
