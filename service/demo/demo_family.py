"""Prepares the family of the demo: fetches texts, trains experts from a seed, registers them.

It uses the interfaces that users have: trainer and client. Results are found again by their
content, so a second run trains nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assembler.demo import seeds
from assembler.demo.corpora import domains, public_texts
from assembler.demo.corpora.domains import Domain
from assembler.demo.demo_seed import DemoSeed
from service.client import local
from service.client.client import Client
from service.client.transfers import Transfer
from service.runtime import preparation
from service.runtime.background import Service
from service.schemas.families import ProjectionBody
from service.terminal import console
from service.terminal.stages import Stages

# Enough for an expert to learn its domain, in about two minutes on two cores.
EXPERT_TRAINING = {"tokens": 16_384, "batch_size": 4}

# Name of a domain, or of its expert -> its documents, JSON Lines.
Texts = Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class DemoFamily:
    """A registered family: address of the service, its name, and the texts of each expert."""

    address: str
    name: str
    texts: Texts


@dataclass(frozen=True)
class Expert:
    """A trained expert, as a Hugging Face folder."""

    name: str
    domain: Domain
    folder: Path


def prepare(
    stages: Stages,
    service: Service,
    *,
    expert_domains: Sequence[Domain],
    seed: DemoSeed = seeds.DEFAULT,
) -> DemoFamily:
    """Register an expert for each of these domains, and a projection trained on other domains.

    Raises Unavailable when texts cannot be fetched, StepFailed when a training fails.
    """
    texts, public = _collect(stages, expert_domains)
    folder = _unpack(stages, seed)
    experts = [
        _train(stages, domain, seed, folder, texts[domain.name]) for domain in expert_domains
    ]
    with stages.stage("Service") as stage:
        address = stage.result = service.wait()
    with Client(address, key=local.key()) as client:
        projection = _register_family(stages, client, seed, folder, public)
        for expert in experts:
            _register_expert(stages, client, expert, family=seed.name)
        _await_projection(stages, client, projection)
    return DemoFamily(
        address=address,
        name=seed.name,
        texts={expert.name: texts[expert.domain.name] for expert in experts},
    )


def _collect(stages: Stages, expert_domains: Sequence[Domain]) -> tuple[Texts, Path]:
    """Fetch the documents of the experts' domains, and one file with the projection's."""
    with stages.stage("Texts") as stage:
        texts = domains.fetch(
            [*expert_domains, *domains.PROJECTION_DOMAINS],
            limit=public_texts.DOCUMENTS_PER_DOMAIN,
            on_progress=stage.say,
        )
        of_experts = {domain.name: texts[domain.name] for domain in expert_domains}
        public = public_texts.fetch(on_progress=stage.say)
        num_public = len(domains.PROJECTION_DOMAINS)
        stage.result = f"{len(of_experts)} domains for experts, {num_public} for the projection"
    return of_experts, public


def _unpack(stages: Stages, seed: DemoSeed) -> Path:
    with stages.stage("Seed") as stage:
        unpacked = preparation.run("seed", seed.name, on_progress=stage.say)
        stage.result = seed.name
    return Path(unpacked["folder"])


def _train(stages: Stages, domain: Domain, seed: DemoSeed, folder: Path, documents: Path) -> Expert:
    with stages.stage(f"Expert {domain.name}") as stage:
        trained = preparation.run(
            "expert",
            str(folder),
            str(documents),
            json.dumps(EXPERT_TRAINING | {"learning_rate": seed.learning_rate}),
            on_progress=stage.say,
        )
        before, after = (trained["metrics"][f"{who}_perplexity"] for who in ("seed", "expert"))
        stage.result = f"held-out perplexity {before:.1f} -> {after:.1f}"
    return Expert(domain.name + seed.suffix, domain, Path(trained["folder"]))


def _register_family(
    stages: Stages, client: Client, seed: DemoSeed, folder: Path, public: Path
) -> ProjectionBody:
    """Register the family and request its projection, which trains while experts are registered."""
    with stages.stage("Family") as stage:
        family = client.register_family(
            folder,
            name=seed.name,
            license=seed.license,
            description=seed.provenance,
            on_transfer=lambda transfer: stage.say(console.transfer(transfer)),
        )
        client.wait_for_family(family, on_wait=stage.say)
        stage.result = "registered, and its projection requested"
        return client.request_projection(seed.name, documents=public)


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
            name=expert.name,
            family=family,
            license=domain.license,
            description=domain.title,
            on_transfer=count,
        )
        version = client.wait_for_embedding(version, on_wait=stage.say)
        stage.result = f"{version.ref}, {num_sent / 1e6:.0f} MB sent"


def _await_projection(stages: Stages, client: Client, projection: ProjectionBody) -> None:
    with stages.stage("Projection") as stage:
        projection = client.wait_for_projection(projection, on_wait=stage.say)
        stage.result = f"{projection.family}@{projection.number}"
