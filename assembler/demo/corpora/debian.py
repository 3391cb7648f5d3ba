"""Download Debian packages by name and unpack them, without installing anything.

The state of apt is in a folder of our own. So any user can do this, also on a machine whose package
lists were never updated.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from assembler.progress import OnMessage
from registry.errors import Unavailable

TIMEOUT_SECONDS = 900


def unpack(patterns: Sequence[str], folder: Path, *, on_progress: OnMessage) -> dict[str, Path]:
    """Download the packages that match `patterns` and unpack each below `folder`.

    A pattern is a regular expression for the whole name. If several names match, the one with the
    highest number is taken, as in `postgresql-doc-15`. Returns the folder of each pattern. Raises
    Unavailable if a tool or package is missing, or a package cannot be downloaded or unpacked.
    """
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise Unavailable(f"the demo's texts come from Debian packages, and {tool} is missing")
    apt = _private_apt(folder / "apt")
    on_progress("reading Debian's package lists")
    # The update may fail because of a broken third-party source; only a missing package matters.
    update = _run(["apt-get", *apt, "--quiet", "update"], cwd=folder)
    known = _run(["apt-cache", *apt, "pkgnames"], cwd=folder).stdout.split()
    names = {pattern: _newest(pattern, known, update.stderr) for pattern in patterns}
    on_progress(f"downloading {', '.join(sorted(names.values()))}")
    download = _run(["apt-get", *apt, "--quiet", "download", *names.values()], cwd=folder)
    if download.returncode != 0:
        raise Unavailable(f"apt-get could not download the texts: {download.stderr.strip()}")
    unpacked = {}
    for pattern, name in names.items():
        on_progress(f"unpacking {name}")
        archive = next(folder.glob(f"{name}_*.deb"))
        unpacked[pattern] = folder / name
        result = _run(["dpkg", "-x", str(archive), str(unpacked[pattern])], cwd=folder)
        if result.returncode != 0:
            raise Unavailable(f"dpkg could not unpack {archive.name}: {result.stderr.strip()}")
        archive.unlink()
    return unpacked


def _private_apt(folder: Path) -> list[str]:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::State": folder / "state",
        "Dir::Cache": folder / "cache",
        # As root, apt would give downloads to a user who may not enter our folder.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    status = Path("/var/lib/dpkg/status")
    if status.exists():
        options["Dir::State::status"] = status
    return [argument for name, value in options.items() for argument in ("-o", f"{name}={value}")]


def _newest(pattern: str, known: Sequence[str], update_errors: str) -> str:
    matches = [name for name in known if re.fullmatch(pattern, name)]
    if not matches:
        reason = update_errors.strip() or "the configured package sources do not have it"
        raise Unavailable(f"no Debian package {pattern}: {reason}")
    return max(matches, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _run(command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True,
            check=False, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} did not end within {TIMEOUT_SECONDS} s") from error
