"""`python -m engine.launch.fork_server SOCKET MODULE...`: run Python modules without import time.

The server imports the modules, then listens at the Unix socket. A request is one line of JSON,
`{"arguments": ["-m", MODULE, ...], "env": {...}, "keeper": PID}`, with the descriptor of a file for
the output. The server forks a process that runs `python ARGUMENTS` in this environment. What
libraries read from the environment while they load stays the server's. The process ends with the
server, unless the process `keeper` inherits it; null is none. The answer is the id of the process
guard in a line, and its exit status in another one, when nothing is left of the process. -N means
signal N. A connection that ends before says that the guard was killed.

A fork has none of the threads that imported modules have started. OpenBLAS knows that, and starts
its own anew.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from setproctitle import setproctitle

from engine.launch import process_guard

BACKLOG = 16
# A client sends its request at once.
REQUEST_SECONDS = 10.0
CHUNK_BYTES = 1 << 16


def main(arguments: Sequence[str]) -> None:
    """Serve until killed. In a forked process, run what its request asks for."""
    path, *modules = arguments
    for name in modules:
        importlib.import_module(name)
    # A fork would write what is left in the buffers once more, to its own output.
    sys.stdout.flush()
    sys.stderr.flush()
    # The collector would write to every object, and so copy the pages that forks share.
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        # Clients that connect to this path find a server that answers.
        server.bind(path)
        server.listen(BACKLOG)
        asked = _next_fork(server)
    _become(asked)


def _next_fork(server: socket.socket) -> dict[str, Any]:
    """Fork a guarded process for each request. Returns in such a process only, its request."""
    signal.signal(signal.SIGCHLD, lambda *_: _collect())
    server_pid = os.getpid()
    while True:
        connection, _ = server.accept()
        with connection:
            if os.fork():
                continue
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asked, output = _read(connection)
            _redirect(output)
            # As `LocalLauncher` starts a guard.
            os.setsid()
            _tell(connection, os.getpid())
            process_guard.fork(
                [pid for pid in (server_pid, asked["keeper"]) if pid is not None],
                [sys.executable, *asked["arguments"]],
                env=asked["env"],
                output=connection.fileno(),
            )
            return asked


def _collect() -> None:
    """Remove guards that have ended from the table of processes, and keep their CPU time."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _read(connection: socket.socket) -> tuple[dict[str, Any], int]:
    """Return a request and the descriptor of its output. Ends the process when none comes."""
    connection.settimeout(REQUEST_SECONDS)
    with suppress(OSError, ValueError, IndexError):
        line, descriptors, _, _ = socket.recv_fds(connection, CHUNK_BYTES, 1)
        while chunk := b"" if line.endswith(b"\n") else connection.recv(CHUNK_BYTES):
            line += chunk
        return json.loads(line), descriptors[0]
    os._exit(1)


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # the client has gone
        connection.sendall(f"{number}\n".encode())


def _become(asked: dict[str, Any]) -> None:
    """Run the module that is asked for, as `python -m` does."""
    option, module, *arguments = asked["arguments"]
    assert option == "-m"
    # Lists of processes show what runs, as if Python had been started with it. The title is written
    # over the first environment, which is looked for where the present one lies.
    setproctitle(" ".join([sys.executable, *asked["arguments"]]))
    os.environ.clear()
    os.environ.update(asked["env"])
    # `run_module` puts the path of the module first.
    sys.argv = ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _redirect(output: int) -> None:
    """Read nothing, and write all output to a descriptor."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)


if __name__ == "__main__":
    main(sys.argv[1:])
