"""Run the marked blocks of a page in order in one shell, as a reader would paste them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from engine.launch.launcher import free_port
from tests.docs import pages
from tests.docs.pages import Block

SHELLS = ("sh", "bash")
# The port in the text of pages. Tests replace it, because another service may listen there.
PORT = "8421"
STOP_SECONDS = 60
END = "END_OF_THE_BLOCK"
WAIT_FOR_SERVICE = f"""\
for _ in $(seq 900); do
    ! curl --silent --fail http://127.0.0.1:{PORT}/health || break
    kill -0 $! || exit 1
    sleep 0.2
done
"""
# The reader's `./nexusmix` creates an environment; this one uses the environment of the tests.
PROGRAM = f"""\
#!/bin/sh
case $1 in
    test | bench | docs | lock) cd {shlex.quote(str(pages.ROOT))} && set -- -m tests.chores "$@" ;;
    *) set -- -m service.cli "$@" ;;
esac
exec {shlex.quote(sys.executable)} "$@"
"""


def marked(page: Path) -> list[Block]:
    """Return the blocks of a page that are marked to be run."""
    return [block for block in pages.blocks(page) if block.run is not None]


def script(blocks: Sequence[Block]) -> str:
    """Return the shell script of the blocks; it ends at the first failed command."""
    return "".join(["set -e\n", *map(_part, blocks)])


def run(blocks: Sequence[Block], folder: Path, *, seconds: float) -> str:
    """Run the blocks in an empty folder, with an empty data folder, and return their output.

    Raises AssertionError with the output when a command fails, TimeoutExpired after `seconds`.
    """
    program = folder / "nexusmix"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    port = str(free_port())
    text = script(blocks).replace(PORT, port)
    programs = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    # With this option curl fails on an error answer, so that the test fails too.
    (folder / ".curlrc").write_text("fail\n")
    environment = os.environ | {
        "CURL_HOME": str(folder),
        "NEXUSMIX_HOME": str(folder / "home"),
        "NEXUSMIX_PORT": port,
        "PATH": os.pathsep.join(programs),
    }
    output = folder / "output.txt"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", text],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(seconds)
        finally:
            _stop(shell)
    printed = output.read_text(errors="replace")
    assert status == 0, f"status {status}:\n{printed[-6000:]}"
    return printed


def _part(block: Block) -> str:
    code = block.code
    if block.language == "python":
        code = f"python - <<'{END}'\n{code}{END}\n"
    if block.run == "background":
        code = f"(\n{code}) &\n{WAIT_FOR_SERVICE}"
    return code


def _stop(shell: "subprocess.Popen[bytes]") -> None:
    """End the shell and all processes that it has started."""
    started = list(_members(shell.pid))
    for process in started:
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(started, timeout=STOP_SECONDS)
    for process in alive:
        process.kill()
    shell.wait()


def _members(group: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                yield process
        except ProcessLookupError:
            continue
