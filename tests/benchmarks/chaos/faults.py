"""The faults: each breaks one thing, mends it where nobody else would, and says what it did."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url

from tests.benchmarks.chaos.installation import Installation

KILLED = ("web", "worker", "agent", "server", "postgres", "s3")
FREEZE_SECONDS = (2.0, 15.0)
S3_AWAY_SECONDS = (2.0, 20.0)
FULL_SECONDS = (5.0, 15.0)
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Fault:
    """`strike` returns what it did, None if there was nothing to break."""

    name: str
    strike: Callable[[Installation, random.Random], str | None]


def kill(part: str) -> Fault:
    """Kill the processes of a part with SIGKILL."""

    def strike(installation: Installation, chance: random.Random) -> str | None:
        number = installation.signal(part, signal.SIGKILL)
        if part == "s3":
            # Nobody else starts it again.
            time.sleep(chance.uniform(*S3_AWAY_SECONDS))
            installation.s3.process.terminate(0.0)
            installation.s3.start()
        return f"{number} killed" if number else None

    return Fault(f"kill {part}", strike)


def freeze(part: str) -> Fault:
    """Stop the processes of a part for some seconds, and let them go on."""

    def strike(installation: Installation, chance: random.Random) -> str | None:
        number = installation.signal(part, signal.SIGSTOP)
        if not number:
            return None
        seconds = chance.uniform(*FREEZE_SECONDS)
        try:
            time.sleep(seconds)
        finally:
            installation.signal(part, signal.SIGCONT)
        return f"{number} frozen for {seconds:.0f} s"

    return Fault(f"freeze {part}", strike)


def _fill_disk(installation: Installation, chance: random.Random) -> str:
    ballast, written = installation.home / "ballast", 0
    seconds = chance.uniform(*FULL_SECONDS)
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                written += file.write(bytes(CHUNK_BYTES))
        time.sleep(seconds)
    finally:
        ballast.unlink(missing_ok=True)
    return f"full for {seconds:.0f} s, by {written >> 20} MiB"


def _cut_clients(installation: Installation, chance: random.Random) -> str | None:
    number = installation.proxy.cut()
    return f"{number} connections cut" if number else None


def _cut_database(installation: Installation, chance: random.Random) -> str | None:
    url = make_url(os.environ["NEXUSMIX_DATABASE_URL"]).set(drivername="postgresql")
    address = url.render_as_string(hide_password=False)
    try:
        with closing(psycopg.connect(address, autocommit=True, connect_timeout=5)) as connection:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchall()
    except psycopg.OperationalError:
        return None  # it is away because of an earlier fault
    return f"{len(rows)} sessions ended"


def faults(*, small_disk: bool) -> list[Fault]:
    """Return every fault; the disk is filled only if it is one of our own."""
    everything = [make(part) for part in KILLED for make in (kill, freeze)]
    everything += [Fault("cut clients", _cut_clients), Fault("cut database", _cut_database)]
    if small_disk:
        everything.append(Fault("fill disk", _fill_disk))
    return everything


class Deck:
    """Draws faults at random so that each comes once before any comes twice."""

    def __init__(self, drawn: list[Fault], chance: random.Random) -> None:
        self._all, self._chance = drawn, chance
        self._left: list[Fault] = []

    def draw(self) -> Fault:
        if not self._left:
            self._left = self._chance.sample(self._all, len(self._all))
        return self._left.pop()
