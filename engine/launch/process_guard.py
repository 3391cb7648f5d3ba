"""Guard one command, so that neither it nor its descendants outlive it or the launcher.

The guard runs as a script, `process_guard.py PARENT_PIDS ORPHANS COMMAND...`, and imports only the
standard library. `engine.launch.fork_server` guards what it forks in the same way. A guard leads a
process group and passes SIGTERM on to the command. When the command ends, or none of the parents is
left, it kills every process that the command left behind, including orphans that it adopted.
Parents are the launcher and, after a comma, a process that may inherit the guard. With ORPHANS
`leave` in place of `kill`, the guard adopts none: the command's own children may outlive it. Linux
only.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# The launcher sends this signal after its grace period.
KILL = signal.SIGUSR1
# The kernel sends this one when the parent has died, or only the parent's thread that started us.
ORPHANED = signal.SIGUSR2


def arguments(parent_pids: Collection[int], *, leaves_children: bool = False) -> list[str]:
    """Return the arguments with which Python runs the guard; those of the command follow.

    -I -S: the guard needs only the standard library, and so starts in a few milliseconds.
    """
    parents = ",".join(map(str, parent_pids))
    return ["-I", "-S", __file__, parents, "leave" if leaves_children else "kill"]


def main(parent_pids: set[int], orphans: str, command: list[str]) -> NoReturn:
    """Run the command under guard and exit as it exits."""
    guard(parent_pids, orphans)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE; exec would keep that
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
        os._exit(127)


def guard(
    parent_pids: set[int], orphans: str, *, on_end: Callable[[int], None] = lambda _: None
) -> None:
    """Fork, and return in the child only: this process guards the child, and exits as it exits.

    `on_end` is called with the status of the child, -N for signal N, when nothing is left of it.
    """
    if orphans == "kill":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = _fork()
    if not child:
        return
    signal.signal(signal.SIGTERM, lambda *_: kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends SIGINT to the whole group
    signal.signal(KILL, lambda *_: kill(child, signal.SIGKILL))

    def check_parent(*_: object) -> None:
        if os.getppid() not in parent_pids:
            kill(child, signal.SIGKILL)

    signal.signal(ORPHANED, check_parent)
    _prctl(PR_SET_PDEATHSIG, ORPHANED)
    check_parent()  # it may have died before prctl asked for the signal
    _, status = os.waitpid(child, 0)
    if orphans == "kill":
        _kill_orphans()
    code = os.waitstatus_to_exitcode(status)
    on_end(code)
    _exit_like(code)


def _fork() -> int:
    """Fork; return the id of the child, and in the child 0."""
    guard_pid = os.getpid()
    child = os.fork()
    if not child:
        # When the guard itself is killed, the kernel kills the command too.
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:
            os._exit(1)
    return child


def _kill_orphans() -> None:
    """Kill descendants until none is left.

    This process is their subreaper, so an orphaned descendant becomes its child.
    """
    while True:
        for pid in _children():
            kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Return the process ids of this process's children."""
    guard_pid = str(os.getpid())
    children = []
    for folder in Path("/proc").iterdir():
        try:
            # The line is "pid (name) state ppid ..."; the name may hold any character, so parse
            # after its last parenthesis.
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue  # not a process, or it has ended meanwhile
        if parent == guard_pid and folder.name.isdigit():
            children.append(int(folder.name))
    return children


def _exit_like(code: int) -> NoReturn:
    """Exit as the command did: with its status, or by the signal that killed it."""
    if code < 0:
        with suppress(OSError):  # SIGKILL has no handler to reset
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main({int(pid) for pid in sys.argv[1].split(",")}, sys.argv[2], sys.argv[3:])
