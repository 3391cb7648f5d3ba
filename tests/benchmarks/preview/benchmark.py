"""Measure how long it takes from a request for a mix to the first token of its preview.

The demo's three experts are mixed without a finetune, by a running service. The client asks for one
token again and again until it gets one. Each round is a mix of another name, and is cancelled once
it has answered. Nothing else should be running: the stages are wall-clock time. The seconds of CPU
time that the engine has used until then depend less on the neighbors.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from assembler.demo.corpora import domains
from engine.launch.adopted_process import process_times
from engine.launch.launcher import LocalLauncher
from engine.serving.tables import LIVE_STATES
from engine.vllm_build import vllm_package
from registry.settings import settings
from service.client import local
from service.client.client import Client
from service.demo import demo_family
from service.demo.bars import Bar
from service.runtime import background
from service.schemas.mixes import MixBody
from service.terminal import console
from service.terminal.stages import Stages
from service.web import preview_marks
from tests.benchmarks.harness import reports, web_process

NAME = "preview"
PACKAGES = ("nexusmix", "torch", vllm_package())
MOST_SECONDS = 30.0
POLL_SECONDS = 0.05
GIVE_UP_SECONDS = 300.0
STOP_SECONDS = 20.0
PROMPT = "What is a sonnet?"
TINY = {"family": "tiny", "experts": ["expert-1", "expert-2"]}

# Seconds by stage.
Seconds = dict[str, float]


@dataclass(frozen=True)
class Running:
    """A service with experts that can be mixed: `request` names them."""

    address: str
    key: str
    request: Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "seconds from a request to the first token of a preview")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = reports.chosen(parser, argv)
    rounds = 1 if chosen.quick else chosen.rounds
    with _tiny() if chosen.quick else _demo() as service:
        runs = [_measure(service, f"{NAME}-{time.time_ns()}") for _ in range(rounds)]
    measured = [stages for stages, _ in runs]
    totals = [sum(stages.values()) for stages in measured]
    figures = {
        "rounds": rounds,
        "experts": len(service.request["experts"]),
        "seconds": reports.summary(totals, digits=1),
        "stages": {
            name: reports.summary([stages[name] for stages in measured], digits=1)
            for name in measured[0]
        },
        "engine_cpu_seconds": reports.summary([used for _, used in runs], digits=1),
        "load_average": round(os.getloadavg()[2], 1),
    }
    bars = [Bar("seconds to the first token", max(totals), "<=", MOST_SECONDS)]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


@contextmanager
def _demo() -> Iterator[Running]:
    """Run the service with the demo's experts, made if they are not there."""
    with background.running() as service:
        stages = Stages(console.notes)
        family = demo_family.prepare(stages, service, expert_domains=domains.EXPERT_DOMAINS)
        request = {"family": family.name, "experts": list(family.texts)}
        yield Running(family.address, local.key(), request)


@contextmanager
def _tiny() -> Iterator[Running]:
    """Run a service of its own with tiny experts."""
    with web_process.running() as web, ExitStack() as stack:
        for part in ("assembler.jobs.worker", "engine.serving.agent"):
            process = LocalLauncher().run(
                [sys.executable, "-m", part],
                env=os.environ,
                log_path=settings().home / f"{part}.log",
            )
            stack.callback(process.terminate, STOP_SECONDS)
        yield Running(web.address, web.keys[0], TINY)


def _measure(service: Running, name: str) -> tuple[Seconds, float]:
    """Request a mix, wait for the first token of its preview, cancel it.

    Returns the stages, and the CPU time of its engine.
    """
    with Client(service.address, key=service.key) as client:
        times = [time.time()]
        mix = client.request_mix(
            name=name, **service.request, finetune={"tokens": 0}, deploy=True, preview=True
        )
        times.append(time.time())
        answered = _await_token(service, name)
        used = _cpu_seconds(name)
        deployment = next(client.deployments(model=name))
        assert deployment.ready_at is not None
        times += [*_assembly(client, mix), deployment.ready_at.timestamp(), answered]
        _end(client, mix)
    names = ("request", "queue", "assembly", "engine", "first token")
    stages = {
        name: end - begin for name, begin, end in zip(names, times[:-1], times[1:], strict=True)
    }
    reports.say(", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items()))
    return stages, used


def _await_token(service: Running, name: str) -> float:
    """Ask for one token until it comes, and return when. Raises TimeoutError."""
    body = {"model": name, "prompt": PROMPT, "max_tokens": 1, "stream": True}
    headers = {"Authorization": f"Bearer {service.key}"}
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    with httpx.Client(base_url=service.address, headers=headers, timeout=GIVE_UP_SECONDS) as http:
        while time.monotonic() < give_up_at:
            with http.stream("POST", "/v1/completions", json=body) as answer:
                # Not found before the assembly, unavailable while the engine starts.
                if answer.status_code not in (404, 503):
                    answer.raise_for_status()
                    assert answer.headers[preview_marks.HEADER] == preview_marks.YES
                    next(answer.iter_lines())
                    return time.time()
            time.sleep(POLL_SECONDS)
    raise TimeoutError(f"no preview after {GIVE_UP_SECONDS:.0f} s")


def _assembly(client: Client, mix: MixBody) -> tuple[float, float]:
    """Return when the assembly began and ended."""
    times = {}
    for event in client.events(mix):
        if event.data.get("step") == "assemble":
            times[event.data["phase"]] = event.created_at.timestamp()
        if len(times) == 2:
            break
    return times["began"], times["ended"]


def _cpu_seconds(name: str) -> float:
    """Return the CPU time of the engine of a model, whose process guard has its arguments."""
    return sum(
        process_times(process.pid)
        for process in psutil.process_iter(["cmdline"])
        if name in (words := process.info["cmdline"] or []) and "-I" in words
    )


def _end(client: Client, mix: MixBody) -> None:
    """Cancel a mix, and wait until its engine has ended."""
    client.cancel_mix(mix)
    while any(deployment.state in LIVE_STATES for deployment in client.deployments(model=mix.name)):
        time.sleep(POLL_SECONDS)
