"""Lets engines outlive the agent that started them, but not the service.

The supervisor becomes the keeper: the kernel hands it the processes that its descendants leave
behind. An engine's process guard goes on as long as its parent is the agent or the keeper.
"""

import ctypes
import os
from collections.abc import Collection
from contextlib import suppress

import psutil

VARIABLE = "NEXUSMIX_KEEPER_PID"
PR_SET_CHILD_SUBREAPER = 36


def become_keeper() -> None:
    """Let this process inherit what its descendants leave behind, and tell them by a variable."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    os.environ[VARIABLE] = str(os.getpid())


def keeper_pid() -> int | None:
    """Return the process id of the keeper above this process, or None when there is none."""
    named = os.environ.get(VARIABLE, "")
    above = {process.pid for process in psutil.Process().parents()}
    return int(named) if named.isdigit() and int(named) in above else None


def bury(own_children: Collection[int]) -> None:
    """Collect the status of inherited processes that have ended, so that none stays a zombie.

    `own_children` were started by this process, which asks for their status itself.
    """
    with suppress(ChildProcessError):  # there are no children
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in own_children:
                return  # the others come after its status was asked for
            os.waitpid(ended.si_pid, os.WNOHANG)
