"""Guard one command, so that neither it nor its descendants outlive it or the launcher.

The guard runs as a script, `process_guard.py PARENT_PIDS ORPHANS COMMAND...`, and imports only the
standard library. A guard leads a process group and passes SIGTERM on to the command. When the
command ends, or none of the parents is left, it kills every process that the command left behind,
including orphans that it adopted. Parents are the launcher and, after a comma, a process that may
inherit the guard. With ORPHANS `leave` in place of `kill`, the guard adopts none: the command's own
children may outlive it. Linux only.

A process that forks what runs, as `engine.launch.fork_server` does, becomes the guard of its child:
`process_guard.py PARENT_PIDS ORPHANS --forked CHILD OUTPUT COMMAND...`. COMMAND only tells others
what runs. When nothing is left of it, a line with its status is written to the descriptor OUTPUT.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# The launcher sends this signal after its grace period.
KILL = signal.SIGUSR1
# The kernel sends this one when the parent has died, or only the parent's thread that started us.
ORPHANED = signal.SIGUSR2
HANDLED = (signal.SIGTERM, signal.SIGINT, KILL, ORPHANED)

FORKED = "--forked"


def arguments(parent_pids: Collection[int], *, leaves_children: bool = False) -> list[str]:
    """Return the arguments with which Python runs the guard; those of the command follow.

    -I -S: the guard needs only the standard library, and so starts in a few milliseconds.
    """
    parents = ",".join(map(str, parent_pids))
    return ["-I", "-S", __file__, parents, "leave" if leaves_children else "kill"]


def main(parent_pids: set[int], orphans: str, command: list[str]) -> NoReturn:
    """Run the command under guard and exit as it exits."""
    if orphans == "kill":
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
    if child := _fork():
        _guard(child, parent_pids, orphans)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores SIGPIPE; exec would keep that
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
        os._exit(127)


def fork(
    parent_pids: Collection[int], command: Sequence[str], *, env: Mapping[str, str], output: int
) -> None:
    """Fork, and return in the child only: this process becomes a guard that runs as a script.

    So it holds none of this process's memory, and lists of processes show it as the guard of
    `command`, in the environment `env`. It writes the status of the child to `output`: -N for
    signal N, and when nothing is left of it.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    # They wait until the script has its handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    if child := _fork():
        os.set_inheritable(output, True)
        guarding = [FORKED, str(child), str(output)]
        script = [sys.executable, *arguments(parent_pids), *guarding, *command]
        os.execve(sys.executable, script, env)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)


def _guard(
    child: int, parent_pids: set[int], orphans: str, *, output: int | None = None
) -> NoReturn:
    """Guard a child and exit as it exits; write its status to `output`."""
    signal.signal(signal.SIGTERM, lambda *_: kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends SIGINT to the whole group
    signal.signal(KILL, lambda *_: kill(child, signal.SIGKILL))

    def check_parent(*_: object) -> None:
        if os.getppid() not in parent_pids:
            kill(child, signal.SIGKILL)

    signal.signal(ORPHANED, check_parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    _prctl(PR_SET_PDEATHSIG, ORPHANED)
    check_parent()  # it may have died before prctl asked for the signal
    _, status = os.waitpid(child, 0)
    if orphans == "kill":
        _kill_orphans()
    code = os.waitstatus_to_exitcode(status)
    if output is not None:
        with suppress(OSError):  # nobody reads it any more
            os.write(output, f"{code}\n".encode())
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


def kill_group(guard: int) -> None:
    """Kill what a guard that was killed could not: the processes that did not leave its group."""
    with suppress(ProcessLookupError):
        os.killpg(guard, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _run(parents: str, orphans: str, *command: str) -> NoReturn:
    """Run the script with its arguments."""
    parent_pids = {int(pid) for pid in parents.split(",")}
    if command[0] == FORKED:
        _guard(int(command[1]), parent_pids, orphans, output=int(command[2]))
    main(parent_pids, orphans, list(command))


if __name__ == "__main__":
    _run(*sys.argv[1:])
