"""`nexusmix demo`: the main job on real input, from public texts to a mix that is served.

Everything goes through the interfaces that users have: the trainer, the client, the gateway. What
was made once is found again, by content: a second run trains nothing.
"""

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from assembler.corpora import domains
from assembler.corpora.domains import Domain
from assembler.tables import MixState
from engine.tables import DeploymentState
from registry import documents
from registry.errors import StepFailed
from registry.settings import settings
from registry.tables import ProjectionState
from service import background, bars, console, memory, preparation, reports, sampling
from service.background import Service
from service.client import Client, Transfer
from service.comparison import Comparison
from service.reports import Report
from service.sampling import Completion
from service.schemas import EventBody, MixBody, ProjectionBody
from service.stages import Stages

MIX = "demo"
# Several times what the trainings read; more would only make the first run longer.
DOCUMENTS_PER_DOMAIN = 400
# Enough to know a domain, in about two minutes on two cores.
EXPERT_TRAINING = {"tokens": 16_384, "batch_size": 4}
PROMPT_WORDS = 40

# JSON Lines of each domain.
Texts = Mapping[str, Path]


@dataclass(frozen=True)
class Seed:
    folder: Path
    name: str
    licence: str
    description: str


@dataclass(frozen=True)
class Expert:
    domain: Domain
    folder: Path


def main(*, stay: bool, report_path: Path | None) -> int:
    """0 when the mix keeps what is promised of it, 1 when not; serves on afterwards if `stay`."""
    # An ordinary kill unwinds as Ctrl-C does, so that nothing is left behind. A shell that runs
    # this in the background has Ctrl-C ignored: then too it must end us when it is sent.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    stages = Stages(console.notes)
    try:
        with memory.sampled() as peaks, background.running() as service:
            report = _run(stages, service)
            console.print_report(report)
            if report_path is not None:
                content = reports.to_json(report, stages=stages, peaks=peaks)
                report_path.write_text(json.dumps(content, indent=2) + "\n")
            if stay:
                console.greet(report.address)
                signal.pause()
    except KeyboardInterrupt:
        console.notes.print("stopped")
        return 130
    return 1 if report.broken else 0


def _run(stages: Stages, service: Service) -> Report:
    texts, public = _collect(stages)
    seed = _unpack(stages)
    experts = [_train(stages, domain, seed, texts) for domain in domains.EXPERT_DOMAINS]
    with stages.stage("Service") as stage:
        address = stage.result = service.wait()
    with Client(address, key=background.key()) as client:
        projection = _register_family(stages, client, seed, public)
        for expert in experts:
            _register_expert(stages, client, expert, family=seed.name)
        _await_projection(stages, client, projection)
        mix, step_seconds = _mix(stages, client, family=seed.name)
        _await_deployment(stages, client)
        gate = client.gate_report(mix)
    comparison = Comparison.of(gate)
    return Report(
        address=address,
        mix=mix,
        step_seconds=step_seconds,
        gate=gate,
        comparison=comparison,
        bars=bars.check(comparison),
        completions=_complete(stages, address, texts),
    )


def _collect(stages: Stages) -> tuple[Texts, Texts]:
    """Documents of the experts' domains, and of those that the projection learns from."""
    with stages.stage("Texts") as stage:
        texts = domains.fetch(
            domains.EXPERT_DOMAINS + domains.PROJECTION_DOMAINS,
            limit=DOCUMENTS_PER_DOMAIN,
            on_progress=stage.say,
        )
        own, public = (
            {domain.name: texts[domain.name] for domain in group}
            for group in (domains.EXPERT_DOMAINS, domains.PROJECTION_DOMAINS)
        )
        stage.result = f"{len(own)} domains for experts, {len(public)} for the projection"
    return own, public


def _unpack(stages: Stages) -> Seed:
    with stages.stage("Seed") as stage:
        seed = preparation.run("seed", on_progress=stage.say)
        stage.result = seed["name"]
    return Seed(Path(seed["folder"]), seed["name"], seed["licence"], seed["description"])


def _train(stages: Stages, domain: Domain, seed: Seed, texts: Texts) -> Expert:
    with stages.stage(f"Expert {domain.name}") as stage:
        trained = preparation.run(
            "expert",
            str(seed.folder),
            str(texts[domain.name]),
            json.dumps(EXPERT_TRAINING),
            on_progress=stage.say,
        )
        before, after = (trained["metrics"][f"{who}_perplexity"] for who in ("seed", "expert"))
        stage.result = f"held-out perplexity {before:.1f} -> {after:.1f}"
    return Expert(domain, Path(trained["folder"]))


def _register_family(stages: Stages, client: Client, seed: Seed, public: Texts) -> ProjectionBody:
    """The projection is asked for at once: it trains while the experts are registered."""
    with stages.stage("Family") as stage:
        client.register_family(
            seed.folder,
            name=seed.name,
            licence=seed.licence,
            description=seed.description,
            on_transfer=lambda transfer: stage.say(console.transfer(transfer)),
        )
        path = settings().cache_path / "projection.jsonl"
        path.write_bytes(b"".join(file.read_bytes() for file in public.values()))
        stage.result = "registered, and its projection asked for"
        return client.request_projection(seed.name, documents=path)


def _register_expert(stages: Stages, client: Client, expert: Expert, *, family: str) -> None:
    domain = expert.domain
    num_sent = 0

    def count(transfer: Transfer) -> None:
        nonlocal num_sent
        num_sent = transfer.num_sent
        stage.say(console.transfer(transfer))

    with stages.stage(f"Register {domain.name}") as stage:
        version = client.register_expert(
            expert.folder,
            name=domain.name,
            family=family,
            licence=domain.licence,
            description=domain.title,
            on_transfer=count,
        )
        stage.say("embedding its domain")
        version = client.wait_for_embedding(version)
        stage.result = f"{version.ref}, {num_sent / 1e6:.0f} MB sent"


def _await_projection(stages: Stages, client: Client, projection: ProjectionBody) -> None:
    with stages.stage("Projection") as stage:
        projection = client.wait_for_projection(projection)
        if projection.state is not ProjectionState.READY:
            raise StepFailed(f"the projection was not made: {projection.error}")
        stage.result = f"{projection.family}@{projection.number}"


def _mix(stages: Stages, client: Client, *, family: str) -> tuple[MixBody, dict[str, float]]:
    began: dict[str, datetime] = {}
    seconds: dict[str, float] = {}

    def follow(event: EventBody) -> None:
        step, phase = event.data.get("step"), event.data.get("phase")
        if phase == "began":
            began[str(step)] = event.created_at
        elif phase == "ended":
            seconds[str(step)] = (event.created_at - began[str(step)]).total_seconds()
        stage.say(_told(event.data) if event.type == "metrics" else event.message)

    with stages.stage("Mix") as stage:
        experts = [domain.name for domain in domains.EXPERT_DOMAINS]
        mix = client.request_mix(name=MIX, family=family, experts=experts, deploy=True)
        mix = client.wait_for_mix(mix, on_event=follow)
        if mix.state is not MixState.SUCCEEDED:
            raise StepFailed(f"{mix.ref} {mix.state}: {mix.error}")
        steps = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
        stage.result = f"{mix.ref} ({steps})"
    return mix, seconds


def _await_deployment(stages: Stages, client: Client) -> None:
    with stages.stage("Deployment") as stage:
        deployment = client.wait_for_deployment(MIX)
        if deployment.state is not DeploymentState.READY:
            raise StepFailed(f"{MIX} is not served: {deployment.error}")
        stage.result = f"model {MIX!r}"


def _complete(stages: Stages, address: str, texts: Texts) -> list[Completion]:
    with stages.stage("Completions") as stage:
        prompts = {name: prompt(path) for name, path in texts.items()}
        done = sampling.complete(address, key=background.key(), model=MIX, prompts=prompts)
        stage.result = f"{sampling.tokens_per_second(done):.1f} tokens/s, one request at a time"
    return done


def prompt(path: Path) -> str:
    """The first PROMPT_WORDS words of a held-out document, as they stand."""
    own = documents.parse([path.read_bytes()])
    text = next(document.text for document in own if document.split == "held-out")
    words = text.split(maxsplit=PROMPT_WORDS)
    rest = words[PROMPT_WORDS] if len(words) > PROMPT_WORDS else ""
    return text.removesuffix(rest).rstrip()


def _told(data: Mapping[str, Any]) -> str:
    return f"step {data['step']} of {data['num_steps']}, loss {data['loss']:.3f}"
