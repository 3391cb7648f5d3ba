"""Run the life of a mix with real experts through a service, as a user's requests would.

1. Three experts of the demo are mixed.
2. A fourth expert, of a domain that nothing has learned from, is added with zero tokens, and again
   with the default finetune.
3. An expert is removed.
4. The mix is made again from its provenance, with equal bytes.
5. The first three experts are mixed again and made int8 as far as divergent tokens allow.
6. A BAM and a BTX mix of them, finetuned with a few tokens, are served.
"""

import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from assembler.demo.corpora import domains
from assembler.planning.plan_data import Plan
from engine.gates.mix_gate import DomainReport
from engine.vllm_build import vllm_package
from service.client import local
from service.client.client import Change, Client
from service.demo import demo, demo_family, following, sampling
from service.demo.bars import Bar
from service.demo.demo_family import DemoFamily
from service.runtime import background, preparation
from service.schemas.mixes import MixBody
from service.terminal import console
from service.terminal.stages import Stages
from tests.benchmarks.harness import reports

NAME = "lifecycle"
PACKAGES = ("nexusmix", "torch", vllm_package())
FIRST = tuple(domain.name for domain in domains.EXPERT_DOMAINS)
JOINING, LEAVING = domains.FURTHER_DOMAINS[0].name, FIRST[1]
MIXED, EXTENDED, FINETUNED, REDUCED = "mixed", "extended", "extended, finetuned", "reduced"
COMPRESSED, BUDGET = "mixed, int8", {"min_fdt_75": 16}
# Their routers are random, and bad after few tokens. So the gate only judges whether they are
# served correctly; their quality is in the figures.
PAPERS = ("bam-shared-kv", "btx")
LENIENT = {
    "candidate": {"max_perplexity_ratio_to_seed": 1e9},
    "general": {"max_perplexity_ratio_to_parents": 1e9},
}
TOKENS, PAPER_TOKENS, QUICK_TOKENS = 24_576, 8_192, 1_024
MIN_SHARE_ON_NEW, MIN_SHARE_FINETUNED, MAX_RATIO_ON_OLD, MIN_SERVED = 0.85, 1.0, 1.01, 0.99


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "plan, mix, extend, remove and reproduce on real experts")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each default finetune")
    chosen = reports.chosen(parser, argv)
    stages = Stages(console.notes)
    expert_domains = [*domains.EXPERT_DOMAINS, domains.FURTHER_DOMAINS[0]]
    with background.running() as service:
        family = demo_family.prepare(stages, service, expert_domains=expert_domains)
        with Client(family.address, key=local.key()) as client:
            life = _Life(stages, client, family)
            if chosen.quick:
                reproduced = life.live(tokens=QUICK_TOKENS, paper_tokens=QUICK_TOKENS)
            else:
                reproduced = life.live(tokens=chosen.tokens, paper_tokens=PAPER_TOKENS)
    figures = {"versions": life.versions, "reproduced": reproduced}
    bars = _bars(life.versions, reproduced)
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


class _Life:
    """Makes versions one after the other, and collects their figures."""

    def __init__(self, stages: Stages, client: Client, family: DemoFamily) -> None:
        self._stages, self._client, self._family = stages, client, family
        self.versions: dict[str, dict[str, Any]] = {}

    def live(self, *, tokens: int, paper_tokens: int) -> dict[str, Any]:
        """Run all stages, and return the result of making the extended mix again."""
        nothing, default, short = ({"tokens": number} for number in (0, tokens, paper_tokens))
        mixed = self._mix(MIXED, name="life", finetune=default)
        joining = {"expert": JOINING}
        self._change(EXTENDED, mixed, "extend", **joining, name="life-zero", finetune=nothing)
        extended = self._change(
            FINETUNED, mixed, "extend", **joining, finetune=default, deploy=True
        )
        reproduced = self._reproduce(extended)
        self._change(REDUCED, extended, "remove", expert=LEAVING, finetune=nothing, deploy=True)
        # With one name each mix replaces the one before, and uses its memory.
        other = {"name": "other"}
        compressed = self._mix(COMPRESSED, **other, finetune=nothing, compress=BUDGET)
        chosen = self._client.compression(compressed).chosen
        self.versions[COMPRESSED]["compression"] = chosen.model_dump(mode="json")
        for preset in PAPERS:
            self._mix(preset, **other, preset=preset, finetune=short, gates=LENIENT)
        return reproduced

    def _mix(self, title: str, **fields: Any) -> MixBody:
        request = fields | {"family": self._family.name, "experts": FIRST, "deploy": True}
        plan = self._client.plan_mix(**request)
        return self._make(title, plan, lambda: self._client.request_mix(**request))

    def _change(self, title: str, base: MixBody, change: Change, **request: Any) -> MixBody:
        plan = self._client.plan_revision(base, change, **request)
        return self._make(title, plan, lambda: self._client.revise_mix(base, change, **request))

    def _make(self, title: str, plan: Plan, request: Callable[[], MixBody]) -> MixBody:
        with self._stages.stage(title) as stage:
            mix, _ = following.make(stage, self._client, request())
        self.versions[title] = {
            "mix": mix.ref,
            "preset": mix.preset,
            "experts": mix.recipe["experts"],
            "base": mix.base,
            "finetune": mix.recipe["finetune"],
            "license": plan.license,
            "warnings": [caution.detail for caution in plan.warnings],
            "domains": {
                domain.domain: _figures(domain) for domain in self._client.gate_report(mix).domains
            },
            "completions": self._complete(mix) if mix.deploy else {},
        }
        return mix

    def _complete(self, mix: MixBody) -> dict[str, str]:
        """Let the served mix complete a prompt in every domain of its experts."""
        following.await_deployment(self._stages, self._client, mix)
        names = [ref.partition("@")[0] for ref in mix.recipe["experts"]]
        prompts = {name: demo.prompt(self._family.texts[name]) for name in names}
        completions = sampling.complete(
            self._family.address, key=local.key(), model=mix.name, prompts=prompts
        )
        return {completion.domain: completion.text for completion in completions}

    def _reproduce(self, mix: MixBody) -> dict[str, Any]:
        """Make a mix again from its provenance and the blobs alone."""
        with self._stages.stage("reproduced") as stage, TemporaryDirectory() as folder:
            provenance = Path(folder) / "provenance.json"
            provenance.write_text(json.dumps(self._client.provenance(mix)))
            report = preparation.run("reproduce", str(provenance), on_progress=stage.say)
            stage.result = "the same" if report["same"] else "NOT the same"
        return {"mix": mix.ref, "same": report["same"], "stages": report["stages"]}


def _figures(report: DomainReport) -> dict[str, Any]:
    """Return the figures of a domain.

    `share_of_gain` is the mix's gain over the seed in log-perplexity, divided by the right expert's
    gain.
    """
    perplexity = report.perplexity
    right = perplexity.experts[report.domain]
    gain = math.log(perplexity.seed / right)
    return {
        "seed": perplexity.seed,
        "right_expert": right,
        "mean_merge": perplexity.merge,
        "version_before": perplexity.base,
        "assembled": perplexity.assembled,
        "mix": perplexity.candidate,
        "share_of_gain": math.log(perplexity.seed / perplexity.candidate) / gain,
        "served_equals_reference": report.served.equal_share,
        "floor_equals_reference": report.noise_floor.equal_share,
    }


def _bars(versions: Mapping[str, Mapping[str, Any]], reproduced: Mapping[str, Any]) -> list[Bar]:
    bars = []
    for title, least in ((EXTENDED, MIN_SHARE_ON_NEW), (FINETUNED, MIN_SHARE_FINETUNED)):
        share = versions[title]["domains"][JOINING]["share_of_gain"]
        claim = f"{title}: share of the right expert's gain on {JOINING}"
        bars.append(Bar(claim, share, ">=", least))
        for name in FIRST:
            domain = versions[title]["domains"][name]
            ratio = domain["mix"] / domain["version_before"]
            claim = f"{title}: perplexity on {name} over the version before"
            bars.append(Bar(claim, ratio, "<=", MAX_RATIO_ON_OLD))
    for title, version in versions.items():
        figures = version["domains"].values()
        served, floor = (
            min(domain[f"{side}_equals_reference"] for domain in figures)
            for side in ("served", "floor")
        )
        # In int8 not even the reference equals itself in another order of summation.
        bars.append(Bar(f"{title}: served equals reference", served, ">=", min(MIN_SERVED, floor)))
    same = statistics.fmean(stage["same"] for stage in reproduced["stages"])
    bars.append(Bar("made again: share of stages that are the same", same, ">=", 1))
    return bars


if __name__ == "__main__":
    sys.exit(main())
