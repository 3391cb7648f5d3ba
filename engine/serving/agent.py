"""Run vLLM servers as the rows of `deployments` request. Run by `python -m engine.serving.agent`.

Each round takes one step with every live row of this host toward its requested state. A step that a
crash or a lost database interrupted is done in a later round. Each deployment's step runs in a
thread of its own: one that is slow or fails holds no other one up. One agent acts for a host, the
others wait for its lease. A server outlives its agent, and the next agent adopts it.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from engine.launch import keeping, launchers
from engine.launch.launcher import Launcher
from engine.serving import adoption, deployments, sleeping, starting, strays
from engine.serving.agent_lease import Lease
from engine.serving.engine_memory import WAITS, Memory
from engine.serving.running import Running
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server import engine_launcher, vllm_process
from registry import logs
from registry.database import db
from registry.errors import NexusmixError, OutOfSpace, RefusedOptions, TimedOut, Unavailable
from registry.settings import settings

log = structlog.stdlib.get_logger(__name__)

ROUND_SECONDS = 0.5
# How long a round waits for its steps; a step that takes longer goes on beside the next rounds.
STEPS_SECONDS = 1.0
MAX_STEPS = 32
MAX_STARTS = 5
FIRST_PAUSE_SECONDS = 1.0
FULL_DISK_SECONDS = 10.0
# A server that has been ready this long was healthy, so its starts are counted from zero again.
HEALTHY_SECONDS = 600.0
STOP_SECONDS = 10.0
# A server that does not work any more is not asked for long.
HUNG_STOP_SECONDS = 1.0

Result = TypeVar("Result")


class Agent:
    """Starts, watches and stops servers so that they match the deployments."""

    def __init__(self, *, launcher: Launcher | None = None, host: str | None = None) -> None:
        self._launcher = launcher or launchers.configured(keeper=keeping.keeper_pid())
        self._lease = Lease(host or settings().host_name)
        self._running: dict[int, Running] = {}
        self._not_before: dict[int, float] = {}
        self._may_start: set[int] = set()
        self._steps: dict[int, Future[None]] = {}
        self._memory = Memory()
        self._threads = ThreadPoolExecutor(MAX_STEPS, thread_name_prefix="deployment")

    def run(self, stopping: threading.Event) -> None:
        """Run rounds until `stopping` is set, then stop all servers; a lost database is waited for.

        Servers of a lost database go on.
        """
        try:
            while not stopping.is_set():
                try:
                    self.round()
                except db.OUTAGES as error:
                    log.warning("database does not answer", error=str(error).splitlines()[0])
                stopping.wait(ROUND_SECONDS)
        finally:
            self.close()

    def round(self) -> None:
        """Take one step for each live deployment of this host, if this agent acts for it.

        Raises OperationalError without database.
        """
        had_lease = self._lease.token is not None
        with db.transaction() as session:
            if not self._lease.hold(session):
                self._leave()
                return
            deployments.claim(session, host=self._lease.host)
            rows = deployments.live(session, host=self._lease.host)
        if not had_lease:
            log.info("acting for host", host=self._lease.host, token=self._lease.token)
            strays.end({row.pid for row in rows})
        gone = self._running.keys() - {row.id for row in rows}
        self._make_room(rows)
        for row in rows:
            self._submit(row.id, self._step, row)
        for deployment_id in gone:
            self._submit(deployment_id, self._stop, deployment_id)
        wait(list(self._steps.values()), timeout=STEPS_SECONDS)

    def close(self) -> None:
        """Stop all servers at the same time, and give the lease back if the database answers."""
        wait(list(self._steps.values()), timeout=STOP_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)
        with suppress(*db.OUTAGES, _Fenced):
            self._write(lambda session: None)
            self._stop_all()
            self._write(lambda session: deployments.reset(session, host=self._lease.host))
            self._write(self._lease.release)
        # They are still here if the database does not answer.
        if self._lease.token is not None:
            self._stop_all()

    def _stop_all(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._stop, list(self._running)))

    def abandon(self) -> None:
        """End as a killed agent does: the servers go on, and the lease stays."""
        self._threads.shutdown(wait=True)
        self._leave()

    def _leave(self) -> None:
        """Leave the servers to the agent that holds the lease now."""
        for running in self._running.values():
            running.unwatch()
        self._running.clear()

    def _submit(self, deployment_id: int, step: Callable[..., None], *arguments: object) -> None:
        """Run a step in a thread, unless the last one of this deployment still runs."""
        last = self._steps.get(deployment_id)
        if last is None or last.done():
            self._steps[deployment_id] = self._threads.submit(step, *arguments)

    def _make_room(self, rows: Sequence[Deployment]) -> None:
        """Put deployments to sleep for others that are requested; see `engine_memory`."""
        unknown = [row for row in rows if not self._memory.knows(row)]
        for row in unknown:
            self._submit(row.id, self._memory.learn, row)
        wait([self._steps[row.id] for row in unknown], timeout=STEPS_SECONDS)
        plan = self._memory.plan(rows, self._running)
        self._may_start = plan.start
        with suppress(_Fenced):
            for number in plan.sleep:
                self._write(partial(sleeping.put_to_sleep, deployment_id=number))
            for row in rows:
                if row.id in plan.waiting and row.error != WAITS:
                    self._advance(row, DeploymentState.REQUESTED, error=WAITS)

    def _step(self, row: Deployment) -> None:
        steps = {
            DeploymentState.REQUESTED: self._start,
            DeploymentState.STARTING: self._await_ready,
            DeploymentState.READY: self._watch,
            DeploymentState.ASLEEP: self._fall_asleep,
            DeploymentState.DRAINING: self._drain,
        }
        try:
            steps[row.state](row)
        except db.OUTAGES as error:
            log.warning("database does not answer", error=str(error).splitlines()[0])
        except _Fenced:
            log.warning("another agent acts for this host", host=self._lease.host)
        except Exception as error:
            # Nobody foresaw it, so it is logged whole. It is this deployment's trouble alone.
            log.exception("deployment failed", deployment=row.id)
            with suppress(*db.OUTAGES, _Fenced):
                self._died(row, f"{type(error).__name__}: {error}")

    def _start(self, row: Deployment) -> None:
        """Start a server for a requested deployment, unless it has to pause or to wait."""
        if row.id in self._running:
            self._fall_asleep(row)  # it still answers what it had begun
            return
        if row.id not in self._may_start or monotonic() < self._not_before.get(row.id, 0):
            return
        row.num_starts += 1
        # The error that caused this restart stays visible until the server is ready.
        if not self._advance(row, DeploymentState.STARTING, error=row.error):
            return
        row.state = DeploymentState.STARTING
        try:
            server = starting.start(row, launcher=self._launcher)
        except OutOfSpace as error:
            # The server is not at fault, so no start is counted: it waits for the disk.
            row.num_starts -= 1
            self._not_before[row.id] = monotonic() + FULL_DISK_SECONDS
            self._advance(row, DeploymentState.REQUESTED, error=error.detail)
            return
        except RefusedOptions as error:
            row.num_starts = MAX_STARTS  # another attempt would end in the same way
            self._died(row, error.detail)
            return
        except (NexusmixError, OSError) as error:
            self._died(row, str(error))
            return
        self._running[row.id] = Running(server)
        log.info("server starts", deployment=row.id, model=row.model, process=server.process.name)
        self._write(
            lambda session: deployments.record_engine(
                session,
                row.id,
                identity=server.process.identity,
                address=server.process.address,
            )
        )

    def _await_ready(self, row: Deployment) -> None:
        """Route to a starting server once it answers; restart it when it is lost or late."""
        running = self._find(row)
        if running is None:
            return
        try:
            if running.server.is_ready():
                running.server.warm_up()
                address, context = running.server.address, running.server.context()
                self._write(
                    lambda session: deployments.mark_ready(
                        session, row.id, address=address, context=context
                    )
                )
                log.info(
                    "server is ready", deployment=row.id, seconds=round(monotonic() - running.since)
                )
                running.watch()
            elif monotonic() > running.since + vllm_process.START_SECONDS:
                raise Unavailable(f"not ready in time:\n{running.server.log_tail()}")
        except TimedOut as error:
            # The machine has too much to do. A later round asks again, until time is up.
            log.warning("server is slow", deployment=row.id, error=error.detail)
            if monotonic() > running.since + vllm_process.START_SECONDS:
                self._died(row, error.detail)
        except Unavailable as error:
            self._died(row, error.detail)

    def _watch(self, row: Deployment) -> None:
        """Restart a ready server that has ended or hangs."""
        running = self._find(row)
        if running is None:
            return
        if running.pulse is None:
            running.watch()
        try:
            running.check()
        except Unavailable as error:
            self._died(row, error.detail)

    def _drain(self, row: Deployment) -> None:
        """Stop a server once it has answered all its requests."""
        running = self._find(row)
        if running is not None:
            if not running.is_drained():
                return
            self._stop(row.id)
        # A preview keeps the reason why it was taken away.
        if self._advance(row, DeploymentState.STOPPED, error=row.error):
            log.info("server stopped", deployment=row.id, model=row.model)

    def _fall_asleep(self, row: Deployment) -> None:
        """Stop the server of a deployment that sleeps, once it has answered all its requests."""
        running = self._running.get(row.id)
        if running is not None and running.is_drained():
            self._stop(row.id)

    def _find(self, row: Deployment) -> Running | None:
        """Return the server of a deployment, adopted from an earlier agent if need be.

        When there is none, the deployment is requested again, or stopped by the caller if it
        drains. Nobody failed, so no start is counted.
        """
        running = self._running.get(row.id)
        if running is not None:
            return running
        try:
            server = adoption.adopt(row, launcher=self._launcher)
        except NexusmixError as error:
            log.info("server is not adopted", deployment=row.id, reason=error.detail)
            if row.state is not DeploymentState.DRAINING:
                row.num_starts = max(0, row.num_starts - 1)
                self._advance(row, DeploymentState.REQUESTED)
            return None
        log.info("server adopted", deployment=row.id, model=row.model, pid=row.pid)
        self._running[row.id] = Running(server)
        return self._running[row.id]

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
        return self._write(
            lambda session: deployments.advance(
                session, row.id, row.state, state, num_starts=row.num_starts, error=error
            )
        )

    def _write(self, change: Callable[[Session], Result]) -> Result:
        """Run a change in a transaction, if this agent still acts for the host. Raises _Fenced."""
        with db.transaction() as session:
            try:
                self._lease.check(session)
            except NexusmixError as error:
                self._lease.token = None
                self._leave()
                raise _Fenced from error
            return change(session)

    def _stop(self, deployment_id: int, grace: float = STOP_SECONDS) -> None:
        running = self._running.pop(deployment_id, None)
        if running is not None:
            running.stop(grace)


class _Fenced(Exception):
    """Another agent acts for the host."""


def main() -> None:
    """Run an agent until SIGTERM or SIGINT."""
    logs.configure("agent", level=settings().log_level)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with engine_launcher.preloaded() as launcher:
        Agent(launcher=launcher).run(stopping)


if __name__ == "__main__":
    main()
