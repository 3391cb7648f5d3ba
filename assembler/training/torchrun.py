"""Run a module as N local processes: `python -m assembler.training.torchrun N MODULE ARG...`.

torchrun's agent starts and watches the processes. Two things differ from plain torchrun. Nothing
listens beyond loopback: the processes meet through a file, where torchrun's stores would listen on
every address. And this process ends as the first failed process did, by the same signal or with the
same last line of output.
"""

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from assembler.training.parallelism import INIT_METHOD
from engine.launch import process_guard

LOOPBACK, LOOPBACK_INTERFACE = "127.0.0.1", "lo"


def main(num_processes: int, command: Sequence[str]) -> int:
    """Return 0 on success, else the failed process's status, with its reason as the last line on
    stderr.

    When a signal killed the first process, the same signal ends this one.
    """
    try:
        with TemporaryDirectory(prefix="nexusmix-") as folder:
            _run(num_processes, command, folder=Path(folder))
    except _Killed as killed:
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(killed.number, signal.SIG_DFL)
        os.kill(os.getpid(), killed.number)
    except _Failed as failed:
        sys.stderr.write(json.dumps({"error": str(failed)}) + "\n")
        return failed.status
    return 0


class _Killed(Exception):
    """A signal killed the first process that failed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Failed(Exception):
    """The first process that failed reported this reason, and ended with this status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


def _run(num_processes: int, command: Sequence[str], *, folder: Path) -> None:
    """Run the processes and wait for them; raise _Killed or _Failed when one fails."""
    os.environ |= {
        INIT_METHOD: f"file://{folder / 'group'}",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "GLOO_SOCKET_IFNAME": LOOPBACK_INTERFACE,
        "NCCL_SOCKET_IFNAME": LOOPBACK_INTERFACE,
    }
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint=str(folder / "agents"),
        rdzv_configs={"store_type": "file"},
        max_restarts=0,
        local_addr=LOOPBACK,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )
    # Each process runs under its own process guard: torchrun starts it in its own session, where it
    # would outlive an agent that is killed.
    guard_command = process_guard.arguments([os.getpid()])
    try:
        elastic_launch(config, sys.executable)(*guard_command, sys.executable, "-m", *command)
    except SignalException as error:
        raise _Killed(error.sigval) from error
    except ChildFailedError as error:
        raise _cause(list(error.failures.values())) from error


def _cause(failures: Sequence[ProcessFailure]) -> Exception:
    """Return what ended the first process that failed.

    The other processes only lost their connection to it, which they may notice and report before it
    has reported its own reason. A process killed by a signal reports nothing; SIGTERM comes from
    the agent and does not count.
    """
    killed = [-f.exitcode for f in failures if f.exitcode < 0 and f.exitcode != -signal.SIGTERM]
    if killed:
        return _Killed(killed[0])
    reported = [failure for failure in failures if Path(failure.error_file).is_file()]
    if not reported:
        status = failures[0].exitcode
        return _Failed(f"a process ended with status {status}", status)
    first = min(reported, key=_order)
    # The agent may end a process with SIGTERM after it has reported.
    return _Failed(first.message, max(first.exitcode, 1))


def _order(failure: ProcessFailure) -> tuple[bool, int]:
    """Sort expected errors first, then by time."""
    path = Path(failure.error_file)
    return not json.loads(path.read_text()).get("expected", False), path.stat().st_mtime_ns


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
