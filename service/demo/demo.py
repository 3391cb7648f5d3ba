"""`nexusmix demo`: everything once on real input, from public texts to a served mix.

It uses the interfaces that users have: trainer, client, gateway. Results are found again by their
content, so a second run trains nothing.
"""

import json
import signal
from pathlib import Path

from assembler.demo.corpora import domains
from assembler.demo.demo_seed import DemoSeed
from registry.catalog import documents
from service.client import local
from service.client.client import Client
from service.demo import bars, demo_family, following, memory, printing, reports, sampling
from service.demo.demo_family import DemoFamily
from service.demo.reports import Report
from service.demo.sampling import Completion
from service.reports.mix_comparison import MixComparison
from service.runtime import background
from service.runtime.background import Service
from service.terminal import console
from service.terminal.stages import Stages

MIX = "demo"
PROMPT_WORDS = 40
# Of the rate that the seed's experts are trained with. The usual family gets the preset's rate.
FINETUNE_RATE = 0.2


def main(seed: DemoSeed, *, stay: bool, report_path: Path | None) -> int:
    """Run the demo from a seed, and serve on afterwards if `stay`.

    Returns 0 when the mix keeps every promise, 1 when not, 130 after an interrupt.
    """
    # Let SIGTERM unwind as Ctrl-C does, so that no process is left behind. Handle SIGINT too: a
    # shell that runs this in the background makes it ignore that signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    stages = Stages(console.notes)
    try:
        with memory.sampled() as peaks, background.running() as service:
            report = _run(stages, service, seed)
            printing.print_report(report)
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


def _run(stages: Stages, service: Service, seed: DemoSeed) -> Report:
    family = demo_family.prepare(stages, service, expert_domains=domains.EXPERT_DOMAINS, seed=seed)
    with Client(family.address, key=local.key()) as client:
        with stages.stage("Mix") as stage:
            requested = client.request_mix(
                name=MIX + seed.suffix,
                family=family.name,
                experts=list(family.texts),
                finetune={"learning_rate": FINETUNE_RATE * seed.learning_rate},
                gates={"measure_baselines": True},
                deploy=True,
            )
            mix, step_seconds = following.make(stage, client, requested)
        following.await_deployment(stages, client, mix)
        gate = client.gate_report(mix)
    comparison = MixComparison.of(gate)
    return Report(
        address=family.address,
        family=family.name,
        mix=mix,
        step_seconds=step_seconds,
        gate=gate,
        comparison=comparison,
        bars=bars.check(comparison),
        completions=_complete(stages, family, model=mix.name),
    )


def _complete(stages: Stages, family: DemoFamily, *, model: str) -> list[Completion]:
    with stages.stage("Completions") as stage:
        prompts = {name: prompt(path) for name, path in family.texts.items()}
        done = sampling.complete(family.address, key=local.key(), model=model, prompts=prompts)
        stage.result = f"{sampling.tokens_per_second(done):.1f} tokens/s, one request at a time"
    return done


def prompt(path: Path) -> str:
    """Return the first PROMPT_WORDS words of a held-out document, unchanged."""
    parsed = documents.parse([path.read_bytes()])
    text = next(document.text for document in parsed if document.split == "held-out")
    words = text.split(maxsplit=PROMPT_WORDS)
    rest = words[PROMPT_WORDS] if len(words) > PROMPT_WORDS else ""
    return text.removesuffix(rest).rstrip()
