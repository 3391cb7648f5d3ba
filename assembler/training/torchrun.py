"""`python -m assembler.training.torchrun N MODULE ARGUMENT...`: a module as N processes of this
machine.

torchrun's agent starts and watches them. Two things are ours: nothing listens beyond loopback,
since processes meet through a file where torchrun's stores would listen on every address; and the
whole ends as the process did that failed first, by the same signal or with its last line.
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
    """0 when all ended well; 1, with the cause as a last line on stderr; or a signal ends this."""
    try:
        with TemporaryDirectory(prefix="nexusmix-") as folder:
            _run(num_processes, command, folder=Path(folder))
    except _Killed as killed:
        with suppress(OSError):  # SIGKILL needs no default handler, and takes none
            signal.signal(killed.number, signal.SIG_DFL)
        os.kill(os.getpid(), killed.number)
    except _Failed as failed:
        sys.stderr.write(json.dumps({"error": str(failed)}) + "\n")
        return 1
    return 0


class _Killed(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Failed(Exception):
    pass


def _run(num_processes: int, command: Sequence[str], *, folder: Path) -> None:
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
    # Each below a keeper of its own: torchrun puts them into sessions of their own, where they
    # would outlive an agent that is killed.
    keeping = ["-I", "-S", str(Path(process_guard.__file__)), str(os.getpid())]
    try:
        elastic_launch(config, sys.executable)(*keeping, sys.executable, "-m", *command)
    except SignalException as error:
        raise _Killed(error.sigval) from error
    except ChildFailedError as error:
        raise _cause(list(error.failures.values())) from error


def _cause(failures: Sequence[ProcessFailure]) -> Exception:
    """What ended the first of them: the others only lost their connection to it, which they may
    notice and tell before it has told its reason.

    A process that is killed tells nothing, and does not wait for a SIGTERM of the agent.
    """
    killed = [-f.exitcode for f in failures if f.exitcode < 0 and f.exitcode != -signal.SIGTERM]
    if killed:
        return _Killed(killed[0])
    told = [failure for failure in failures if Path(failure.error_file).is_file()]
    if not told:
        return _Failed(f"a process ended with status {failures[0].exitcode}")
    return _Failed(min(told, key=_order).message)


def _order(failure: ProcessFailure) -> tuple[bool, int]:
    """Reasons before what was not expected, and then by time."""
    path = Path(failure.error_file)
    return not json.loads(path.read_text()).get("expected", False), path.stat().st_mtime_ns


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
