"""Runs `pg_dump` and `pg_restore`: those on the PATH, or those of the embedded PostgreSQL."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL, make_url

from registry.database import postgres
from registry.errors import OutOfSpace, StepFailed, Unavailable


def dump(url: str, path: Path, *, snapshot: str, server_version: int) -> None:
    """Write all of a database to `path`, in PostgreSQL's custom format, as of a snapshot.

    Raises Unavailable without a fitting program, StepFailed and OutOfSpace.
    """
    program = _find("pg_dump", server_version)
    _run(program, url, "--format=custom", f"--snapshot={snapshot}", f"--file={path}")


def restore(url: str, path: Path, *, server_version: int) -> None:
    """Read a dump into an empty database, all or nothing.

    Owners and rights are those of the account that restores. Raises as `dump`.
    """
    options = ("--no-owner", "--no-privileges", "--no-comments", "--exit-on-error")
    program = _find("pg_restore", server_version)
    _run(program, url, *options, "--single-transaction", str(path))


def _find(name: str, server_version: int) -> Path:
    """Return a program that is not older than the server; that on the PATH comes first."""
    for path in _candidates(name):
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        version = re.search(r"(\d+)", done.stdout)
        if done.returncode == 0 and version and int(version[1]) >= server_version:
            return path
    raise Unavailable(
        f"no {name} of PostgreSQL {server_version} or newer was found: install the client programs"
        " of that version, and put them on the PATH"
    )


def _candidates(name: str) -> list[Path]:
    found = []
    if on_path := shutil.which(name):
        found.append(Path(on_path))
    try:
        embedded = postgres.program(name)
    except Unavailable:
        return found
    return [*found, embedded] if embedded.exists() else found


def _run(program: Path, url: str, *options: str) -> None:
    address = make_url(url).set(drivername="postgresql")
    # Everybody on the machine can read the arguments of a process, so the password is none.
    password = {"PGPASSWORD": address.password} if address.password else {}
    command = [str(program), f"--dbname={_without_password(address)}", "--no-password", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | password)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        kind = OutOfSpace if "No space left" in done.stderr else StepFailed
        raise kind(f"{program.name} ended with status {done.returncode}: {' | '.join(reason[-3:])}")


def _without_password(address: URL) -> str:
    bare = URL.create(
        address.drivername,
        username=address.username,
        host=address.host,
        port=address.port,
        database=address.database,
        query=address.query,
    )
    return bare.render_as_string(hide_password=False)
