"""Stands between a process and its launcher, so that nothing outlives either of them.

Run as a script, `keeper.py LAUNCHER_PID COMMAND...`, free of imports beyond the standard library.
It leads a process group, passes SIGTERM on to the command, and kills whatever the command left
behind, adopted grandchildren included, when the command ends or the launcher dies. Linux only.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# Sent by the system when the launcher dies, and by a launcher that has waited long enough.
KILL = signal.SIGUSR1


def main(launcher_pid: int, command: list[str]) -> NoReturn:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = _start(command)
    signal.signal(signal.SIGTERM, lambda *_: _kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; we outlast
    signal.signal(KILL, lambda *_: _kill(child, signal.SIGKILL))
    _prctl(PR_SET_PDEATHSIG, KILL)
    if os.getppid() != launcher_pid:  # it died before we asked to be told
        _kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    _kill_orphans()
    _exit_like(os.waitstatus_to_exitcode(status))


def _start(command: list[str]) -> int:
    keeper_pid = os.getpid()
    child = os.fork()
    if child:
        return child
    # Should the keeper itself be killed, the command goes with it.
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper_pid:
        os._exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would hand that on
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
        os._exit(127)


def _kill_orphans() -> None:
    """Kill descendants until none is left: as the subreaper, each of them becomes a child here."""
    while True:
        for pid in _children():
            _kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    own = str(os.getpid())
    found = []
    for folder in Path("/proc").iterdir():
        try:
            # "pid (name) state ppid ...": the name may hold anything, so read from its end.
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue  # not a process, or gone meanwhile
        if parent == own and folder.name.isdigit():
            found.append(int(folder.name))
    return found


def _exit_like(code: int) -> NoReturn:
    """End as the command ended: with its status, or by the signal that killed it."""
    if code < 0:
        with suppress(OSError):  # SIGKILL needs no default handler, and takes none
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _kill(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
