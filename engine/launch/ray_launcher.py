"""Start processes on a Ray cluster, each under an actor on a node that has room for it.

The actor starts the command with `LocalLauncher` and returns its output to the caller. Ray ends the
actor when the caller dies, and everything that the actor started ends with it.
"""

import io
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from engine.launch.adopted_process import AdoptedProcess, Identity
from engine.launch.launcher import LOOPBACK, LocalLauncher, Resources
from registry.errors import Unavailable
from registry.settings import settings

# How long a call for new output waits for some, and how often it checks.
NEWS_SECONDS = 2.0
POLL_SECONDS = 0.05
MAX_NEWS_BYTES = 1 << 20
# Time that even a busy cluster needs to answer.
ANSWER_SECONDS = 30.0

# Ray kills the children of an actor that ends, which would stop the process guard from cleaning up.
SPARE_CHILDREN = "RAY_kill_child_processes_on_worker_exit"

_connecting = threading.Lock()


def connect() -> None:
    """Connect this process to the Ray cluster of the settings, unless it is connected already.

    Raises Unavailable when there is no such cluster, or this host is not a node of it.
    """
    with _connecting:
        if ray.is_initialized():
            return
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=settings().ray_address,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Unavailable(
                f"no Ray cluster at {settings().ray_address}: start this host's node with "
                f"`ray start`, or set NEXUSMIX_RAY_ADDRESS ({error})"
            ) from error
        finally:
            # Ray installs its own handler, which would end this process without its clean-up.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)


class RayLauncher:
    """Starts processes on nodes of the cluster; they wait until a node has room."""

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        resources: Resources = Resources(),
    ) -> "RayProcess":
        """Start a command as `Launcher.run` does, and add the assigned GPUs to its environment."""
        connect()
        log_path.parent.mkdir(parents=True, exist_ok=True)
        runner = (
            ray.remote(_Runner)
            .options(
                num_cpus=resources.num_cpus,
                num_gpus=resources.num_gpus,
                # `terminate` must run while `news` waits for output.
                max_concurrency=2,
                runtime_env={"env_vars": {SPARE_CHILDREN: "0"}},
            )
            .remote(list(command), dict(env), ray.util.get_node_ip_address())
        )
        return RayProcess(runner, log_path)

    def adopt(self, identity: Identity, *, address: str) -> AdoptedProcess:
        """Raise Unavailable: Ray ends what a caller has started when the caller dies."""
        raise Unavailable("Ray has ended it with the process that started it")


class RayProcess:
    """A process on some node of the cluster; a thread of this process follows its output."""

    def __init__(self, runner: Any, log_path: Path) -> None:
        self._runner, self._log = runner, log_path.open("ab", buffering=0)
        self._address: str | None = None
        self._status: int | None = None
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    @property
    def name(self) -> str:
        return f"Ray actor {self._runner._actor_id.hex()}"

    @property
    def address(self) -> str | None:
        return self._address

    @property
    def identity(self) -> None:
        return None

    def poll(self) -> int | None:
        return self._status

    def wait(self, timeout: float | None = None) -> int | None:
        self._follower.join(timeout)
        return self._status

    def cpu_seconds(self) -> float:
        return 0.0  # it computes on another node

    def terminate(self, grace: float) -> None:
        if self.poll() is not None:
            return
        if self._address is not None:
            try:
                ray.get(self._runner.terminate.remote(grace), timeout=grace + ANSWER_SECONDS)
                self.wait(ANSWER_SECONDS)
            except (RayError, GetTimeoutError):
                pass  # the node does not answer
        ray.kill(self._runner)
        self.wait()

    def _follow(self) -> None:
        """Copy log and address until the process ends; errors count as its end."""
        status = -signal.SIGKILL
        try:
            with self._log as log:
                try:
                    self._address = ray.get(self._runner.address.remote())
                    status = self._copy_output(log)
                except RayError as error:
                    log.write(f"its Ray actor was lost: {error}\n".encode())
        finally:
            self._status = status
            ray.kill(self._runner)

    def _copy_output(self, log: io.FileIO) -> int:
        """Copy the output to its last byte; return the exit status."""
        while True:
            output, status = ray.get(self._runner.news.remote())
            log.write(output)
            if status is not None and not output:
                return int(status)


class _Runner:
    """The actor: starts one process on its node and reports its output and status."""

    def __init__(self, command: list[str], env: dict[str, str], caller_node: str) -> None:
        # Started in the actor's main thread, which lives as long as the actor: the process dies
        # with it.
        node = ray.util.get_node_ip_address()
        gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        with tempfile.TemporaryDirectory() as folder:
            log_path = Path(folder, "output")
            self._process = LocalLauncher(host=LOOPBACK if node == caller_node else node).run(
                command, env=env | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}, log_path=log_path
            )
            # The file is deleted from here on but stays open, so nothing is left behind.
            self._output = log_path.open("rb")

    def address(self) -> str:
        """Return `http://HOST:PORT` of the process."""
        return self._process.address

    def news(self) -> tuple[bytes, int | None]:
        """Return the output since the last call and the status, as soon as there is either."""
        give_up_at = monotonic() + NEWS_SECONDS
        while True:
            # The status is read before the output, so that output written before the end is never
            # missed.
            status = self._process.wait(POLL_SECONDS)
            output = self._output.read(MAX_NEWS_BYTES)
            if output or status is not None or monotonic() > give_up_at:
                return output, status

    def terminate(self, grace: float) -> None:
        """End the process; kill it when it still runs after `grace` seconds."""
        self._process.terminate(grace)
