"""`./nexusmix bench chaos`: see the package."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from engine.vllm_build import vllm_package
from service.client.client import Client
from service.demo.bars import Bar
from tests.benchmarks.chaos import faults
from tests.benchmarks.chaos.actors import (
    HUNG_SECONDS,
    MODEL,
    Actor,
    Chatter,
    Deployer,
    Follower,
    Mixer,
    Uploader,
)
from tests.benchmarks.chaos.installation import DISK_MIB, Installation, installed
from tests.benchmarks.chaos.ledger import Ledger
from tests.benchmarks.harness import reports

NAME = "chaos"
PACKAGES = ("nexusmix", "torch", "dbos", vllm_package())
QUICK_MINUTES = 2.0
PAUSE_SECONDS = (2.0, 8.0)
RECOVERY_SECONDS = 90.0
SETTLE_SECONDS = 900.0
POLL_SECONDS = 0.5
# Set in the child that has a small disk, which no other process sees.
SMALL_DISK = "NEXUSMIX_CHAOS_DISK"

Event = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "kill, freeze, fill and cut at random, then audit")
    parser.add_argument("--minutes", type=float, default=30.0, help="of faults")
    parser.add_argument("--seed", type=int, default=0, help="of the order of faults")
    chosen = reports.chosen(parser, argv)
    if SMALL_DISK not in os.environ and os.geteuid() == 0:
        return _with_small_disk(sys.argv[1:] if argv is None else argv)
    if chosen.quick:
        chosen.minutes = min(chosen.minutes, QUICK_MINUTES)
    chance, ledger = random.Random(chosen.seed), Ledger()
    with ExitStack() as stack:
        folder = Path(os.environ.get(SMALL_DISK) or stack.enter_context(_folder()))
        installation = stack.enter_context(installed(folder))
        actors = _actors(installation, ledger, chance, folder=folder)
        for actor in actors:
            actor.start()
        events = _break(installation, ledger, chance, seconds=60 * chosen.minutes)
        reports.say("no more faults; waiting until everything has ended")
        for actor in actors:
            actor.stop()
        states = _audit(installation, ledger, actors)
        leaked = ledger.audit_files(installation.home)
        if ledger.findings:
            _keep_logs(installation.home)
    figures = {
        "minutes": chosen.minutes,
        "seed": chosen.seed,
        "small_disk": SMALL_DISK in os.environ,
        "faults": _summary(events),
        "chats_refused": ledger.refused(),
        "actors": {actor.name: dict(actor.outcomes) for actor in actors},
        "acknowledged": {"experts": len(ledger.experts), "mixes": len(ledger.mixes)},
        "mixes": states,
        "for_the_janitor": leaked,
        "findings": ledger.findings,
    }
    for refused in figures["chats_refused"]:
        reports.say("{times} chats got {status} {code} after {fault}".format(**refused))
    bars = [
        Bar("kinds of faults", len(figures["faults"]), ">=", 1),
        Bar("acknowledged experts and mixes", len(ledger.experts) + len(ledger.mixes), ">=", 2),
        Bar("findings", len(ledger.findings), "<=", 0),
    ]
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


def _with_small_disk(argv: Sequence[str]) -> int:
    """Run this in a child that has a small disk below its folder; the disk ends with it."""
    with _folder() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        mount = f'mount -t tmpfs -o size={DISK_MIB}m,mode=755 tmpfs "$0" && exec "$@"'
        command = [sys.executable, "-m", "tests.benchmarks.chaos", *argv]
        child = ["unshare", "--mount", "sh", "-c", mount, str(home), *command]
        return subprocess.run(child, env=os.environ | {SMALL_DISK: folder}, check=False).returncode


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nexusmix-chaos-", ignore_cleanup_errors=True)


def _keep_logs(home: Path) -> None:
    """Copy the logs of the service, which end with its disk: a finding needs its traceback."""
    kept = Path(tempfile.mkdtemp(prefix="nexusmix-chaos-logs-"))
    shutil.copytree(home / "logs", kept, dirs_exist_ok=True)
    reports.say(f"the logs of the service are in {kept}")


def _actors(
    installation: Installation, ledger: Ledger, chance: random.Random, *, folder: Path
) -> list[Actor]:
    address, key = installation.proxy.address, installation.key
    shared: dict[str, Any] = {"key": key, "ledger": ledger, "chance": chance}
    return [
        Uploader(address, folder=folder, **shared),
        *(kind(address, **shared) for kind in (Mixer, Deployer, Follower, Chatter, Chatter)),
    ]


def _break(
    installation: Installation, ledger: Ledger, chance: random.Random, *, seconds: float
) -> list[Event]:
    """Strike fault after fault; measure how long it takes until the service answers again."""
    deck = faults.Deck(faults.faults(small_disk=SMALL_DISK in os.environ), chance)
    events: list[Event] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        fault = deck.draw()
        served = _chats(installation)
        ledger.fault = fault.name
        did = fault.strike(installation, chance)
        if did is None:
            continue
        event: Event = {"fault": fault.name, "did": did, **_recovery(installation, served=served)}
        reports.say(str(event))
        events.append(event)
    return events


def _recovery(installation: Installation, *, served: bool) -> Event:
    """Return the seconds until the API, and the model if it answered before, answer again.

    None means that it did not within RECOVERY_SECONDS.
    """
    began = time.monotonic()
    waiting = {"api": _lists} | ({"model": _chats} if served else {})
    seconds: Event = dict.fromkeys(waiting)
    while waiting and time.monotonic() < began + RECOVERY_SECONDS:
        for name in [name for name, answers in waiting.items() if answers(installation)]:
            seconds[name] = round(time.monotonic() - began, 1)
            del waiting[name]
        time.sleep(POLL_SECONDS)
    return seconds


def _lists(installation: Installation) -> bool:
    """Return whether the API reads the database."""
    return _answers(installation, "GET", "/api/v1/mixes")


def _chats(installation: Installation) -> bool:
    """Return whether the model answers."""
    body = {"model": MODEL, "prompt": "one", "max_tokens": 1}
    return _answers(installation, "POST", "/v1/completions", body)


def _answers(
    installation: Installation, method: str, path: str, body: dict[str, Any] | None = None
) -> bool:
    headers = {"Authorization": f"Bearer {installation.key}"}
    address = installation.service.address
    try:
        return httpx.request(
            method, address + path, json=body, headers=headers, timeout=5
        ).is_success
    except httpx.HTTPError:
        return False


def _audit(installation: Installation, ledger: Ledger, actors: Sequence[Actor]) -> dict[str, int]:
    with Client(installation.service.address, key=installation.key) as client:
        states = ledger.settle(client, seconds=SETTLE_SECONDS)
        for actor in actors:
            if not actor.join(HUNG_SECONDS):
                ledger.find(f"{actor.name} hangs")
        ledger.audit(client, seconds=SETTLE_SECONDS)
    ledger.audit_end(installation)
    return states


def _summary(events: Sequence[Event]) -> dict[str, Event]:
    """Return for each fault how often it struck and the longest recoveries."""
    found: dict[str, Event] = {}
    for name, times in sorted(Counter(event["fault"] for event in events).items()):
        own = [event for event in events if event["fault"] == name]
        found[name] = {"times": times}
        for what in ("api", "model"):
            measured = [event[what] for event in own if what in event]
            late = sum(seconds is None for seconds in measured)
            known = [seconds for seconds in measured if seconds is not None]
            if measured:
                found[name][f"{what}_seconds_at_most"] = max(known, default=None)
            if late:
                found[name][f"{what}_later_than_{RECOVERY_SECONDS:.0f}_s"] = late
    return found


if __name__ == "__main__":
    sys.exit(main())
