"""Run the marked blocks of a page in order in one shell, as a reader would paste them."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.launch.launcher import LocalLauncher, free_port
from tests.docs import pages
from tests.docs.pages import Block

SHELLS = ("sh", "bash")
# The port in the text of pages. Tests replace it, because another service may listen there.
PORT = "8421"
# The key in Python blocks of pages, and the expression that reads that of the installation.
KEY = '"nxm_..."'
READ_KEY = '__import__("subprocess").getoutput("./nexusmix key")'
STOP_SECONDS = 60
SCRIPT = "blocks.sh"
END = "END_OF_THE_BLOCK"
WAIT_FOR_SERVICE = f"""\
service=$!
for _ in $(seq 900); do
    ! curl --silent --fail http://127.0.0.1:{PORT}/health || break
    kill -0 $service || exit 1
    sleep 0.2
done
"""
# A page starts one service at a time, so the next one takes the place of the last.
STOP_SERVICE = """\
if [ -n "${service:-}" ]; then
    kill -- -$service
    while kill -0 -- -$service 2>/dev/null; do sleep 0.2; done
fi
"""
UP = """\
<!-- run: background -->
```sh
exec ./nexusmix up
```

<!-- run -->
```sh
for _ in $(seq 900); do
    curl --silent http://127.0.0.1:8421/v1/models -H "Authorization: Bearer $(./nexusmix key)" \
        | grep --quiet '"demo"' && break
    sleep 0.2
done
```
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


def served() -> list[Block]:
    """Return blocks that start the service and wait until the mix `demo` answers."""
    return pages.parse(UP)


def script(blocks: Sequence[Block]) -> str:
    """Return the shell script of the blocks; it ends at the first failed command.

    Each block in the background has a process group of its own (`set -m`).
    """
    return "".join(["set -em\n", *map(_part, blocks)])


def run(
    blocks: Sequence[Block],
    folder: Path,
    *,
    seconds: float,
    home: Path | None = None,
    replacements: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run the blocks in a folder and return their output.

    `home` is the data folder; without it an empty one is used. `replacements` gives the text that
    stands in place of a placeholder, such as the address of a database. What the blocks start ends
    with them. Raises AssertionError with the output when a command fails, and after `seconds`.
    """
    folder.mkdir(exist_ok=True)
    program = folder / "nexusmix"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    port = str(free_port())
    text = script(blocks).replace(PORT, port)
    for placeholder, value in (replacements or {}).items():
        assert placeholder in text, f"no block has {placeholder}"
        text = text.replace(placeholder, value)
    programs = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
    # With this option curl fails on an error answer, so that the test fails too.
    (folder / ".curlrc").write_text("fail\n")
    (folder / ".venv").symlink_to(sys.prefix)
    own = {
        "CURL_HOME": str(folder),
        "NEXUSMIX_HOME": str(home or folder / "home"),
        "NEXUSMIX_PORT": port,
        "PATH": os.pathsep.join(programs),
    }
    (folder / SCRIPT).write_text(f"cd {shlex.quote(str(folder))}\n{text}")
    output = folder / "output.txt"
    shell = LocalLauncher().run(
        ["bash", str(folder / SCRIPT)],
        env={**os.environ, **own, **(environment or {})},
        log_path=output,
    )
    try:
        status = shell.wait(seconds)
    finally:
        shell.terminate(STOP_SECONDS)
    printed = output.read_text(errors="replace")
    assert status is not None, f"not over after {seconds:.0f} s:\n{printed[-6000:]}"
    assert status == 0, f"status {status}:\n{printed[-6000:]}"
    return printed


def _part(block: Block) -> str:
    code = block.code
    if block.language == "python":
        code = f"python - <<'{END}'\n{code.replace(KEY, READ_KEY)}{END}\n"
    if block.run == "background":
        code = f"{STOP_SERVICE}(\n{code}) &\n{WAIT_FOR_SERVICE}"
    if block.run == "fails":
        code = f"if (\n{code}); then echo 'the block did not fail'; exit 1; fi\n"
    if block.run == "verdict":
        code = f"(\n{code}) || [ $? = 1 ]\n"
    return code
