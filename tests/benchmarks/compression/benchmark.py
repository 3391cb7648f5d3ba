"""Measure the cost and the results of int8 searches on the seed, an expert and a mix.

Units are chosen on prefixes of every other held-out document and judged on the others. Parts of the
result:

- `curves`: the divergence at about equal sizes if units are chosen by FDT, DPPL, perplexity, or in
  the order of the network. `fdt_ahead_of`: how much later texts diverge if FDT chose, prefix by
  prefix.
- `ends`: nothing in int8, everything in int8, and everything without smoothing.
- `cost`: the cost of whole searches by FDT, as the product does them and by reading all texts for
  every candidate; and how equally the latter chooses in other batches. It is measured for the seed,
  and for a small Llama unit by unit.
- `beams`: searches unit by unit on a small Llama, which keep one configuration or as many as the
  paper.

A mix on a CPU keeps its routed experts in float. For a GPU they may be int8 too; this is computed
as a GPU would.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import torch

from engine.compression.int8_curve import By
from engine.compression.int8_units import Target
from engine.divergence.aggregates import distribution_of
from service.demo.bars import Bar
from tests.benchmarks.claims.families import small_llama
from tests.benchmarks.compression import subjects
from tests.benchmarks.compression.int8_trial import Trial
from tests.benchmarks.compression.subjects import Subject
from tests.benchmarks.harness import demo_mix, reports
from tests.benchmarks.harness.cached_results import once
from tests.benchmarks.harness.demo_mix import GENERAL, DemoMix

NAME = "compression"
PACKAGES = ("nexusmix", "torch")
# Raise it when cached results of earlier runs are no longer valid.
VERSION = 7
TARGETS: tuple[Target, ...] = get_args(Target)
SCORES: tuple[By, ...] = ("fdt", "dppl", "perplexity")
WIDTHS = (1, 10)
MAX_COST = 1 / 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME,
        "int8 by divergent tokens: costs and results of searches; an interrupted run continues",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        default=TARGETS,
        help="processors that are to serve",
    )
    subjects.add_options(parser, prompts=16, completion_tokens=32, judging_prompts=128)
    chosen = reports.chosen(parser, argv)
    if chosen.quick:
        chosen.rounds, chosen.prompts, chosen.judging_prompts = 2, 4, 4
    torch.set_num_threads(1)
    demo = demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m()
    choosing, judging = subjects.texts(chosen)
    by_name = subjects.known(chosen).get("subjects", {})
    for subject in subjects.of(demo, chosen.subjects):
        is_mix = subject.manifest.architecture.num_experts > 0
        # For a dense checkpoint a GPU has the same units and integers as a CPU with VNNI.
        targets = TARGETS if is_mix else TARGETS[:2]
        for target in [each for each in targets if each in chosen.targets]:
            trial = Trial(subject, target, choosing, judging, demo.blobs)
            name = f"{subject.name}, {target}"
            by_name[name] = _measure(trial, chosen.rounds)
            if subject.manifest == demo.seed and target == TARGETS[0]:
                by_name[name]["cost"] = _cost(trial, chosen.rounds)
    few = _few_units(demo, is_quick=chosen.quick)
    figures = {
        "threads": torch.get_num_threads(),
        "choosing": choosing.model_dump(),
        "judging": judging.model_dump(),
        "subjects": by_name,
        "beams": _beams(Trial(few, "cpu", choosing, judging, demo.blobs)),
    }
    bars = [] if chosen.quick else list(_bars(figures))
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


def _bars(figures: dict[str, Any]) -> Iterator[Bar]:
    """Yield the bars of every search whose cost was measured."""
    measured = figures["subjects"] | {"beams": figures["beams"]}
    for name, subject in measured.items():
        if cost := subject.get("cost"):
            title = f"{subject.get('model', name)}, {cost['num_rounds']} rounds"
            same, noise = (
                min(cost[f"shares_chosen_{how}"]) for how in ("by_both", "in_other_batches")
            )
            yield Bar(f"{title}: CPU time over reading whole", cost["ratio"], "<=", MAX_COST)
            yield Bar(f"{title}: bytes chosen by both, at least noise", same, ">=", noise)


def _few_units(demo: DemoMix, *, is_quick: bool) -> Subject:
    """Return a Llama with few units, so that a beam search is possible."""
    if is_quick:
        [subject] = subjects.of(demo, ["seed"])
        return subject
    family = small_llama.family(demo.blobs, seed=0, domains=())
    general = {name: family.public[name] for name in GENERAL}
    return Subject(name=f"{family.name}, seed", manifest=family.seed, documents=general)


def _measure(trial: Trial, num_rounds: int) -> dict[str, Any]:
    """Return all figures of one checkpoint, cached from earlier runs."""
    ends, curves = _ends(trial), {by: _curve(trial, by, num_rounds) for by in get_args(By)}
    ahead = {
        by: list(map(_ahead, curves["fdt"], curve)) for by, curve in curves.items() if by != "fdt"
    }
    return {
        "domains": list(trial.subject.documents),
        "num_units": len(trial.units),
        "num_parameters": trial.subject.manifest.architecture.num_parameters,
        "ends": {name: _summary(judged) for name, judged in ends.items()},
        "curves": {by: list(map(_summary, curve)) for by, curve in curves.items()},
        "fdt_ahead_of": ahead,
    }


def _ends(trial: Trial) -> dict[str, dict[str, Any]]:
    names = [unit.name for unit in trial.units]
    return {
        "none": _judged(trial, []),
        "all": _judged(trial, names),
        "all, not smoothed": _judged(trial, names, smoothed=False),
    }


def _curve(trial: Trial, by: By, num_rounds: int, *, beam_width: int = 1) -> list[dict[str, Any]]:
    """Return the choices of a search, judged on other texts."""
    choices: list[dict[str, Any]] = once(
        NAME,
        [VERSION, *trial.choosing_key, num_rounds, by, beam_width],
        partial(trial.choices, by, num_rounds=num_rounds, beam_width=beam_width),
    )
    return [choice | _judged(trial, choice["units"]) for choice in choices]


def _judged(trial: Trial, names: Collection[str], *, smoothed: bool = True) -> dict[str, Any]:
    key = [VERSION, *trial.judging_key, sorted(names), smoothed]
    judged: dict[str, Any] = once(NAME, key, partial(trial.judge, names, smoothed=smoothed))
    return judged


def _ahead(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return by how many tokens texts diverge later, prefix by prefix."""
    distribution = distribution_of([a - b for a, b in zip(one["fdts"], other["fdts"], strict=True)])
    interval = distribution.interval and [round(end, 2) for end in distribution.interval]
    return {"tokens": round(distribution.mean, 2), "interval": interval}


def _summary(judged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures without the FDT of each prefix."""
    return {name: value for name, value in judged.items() if name != "fdts"}


def _cost(trial: Trial, num_rounds: int) -> dict[str, Any]:
    key = [VERSION, *trial.choosing_key, num_rounds]
    cost = once(NAME, [*key, "cost"], partial(trial.cost, num_rounds=num_rounds))
    in_other_batches = once(
        NAME, [*key, "batches"], partial(trial.chosen_in_other_batches, num_rounds=num_rounds)
    )
    ours, whole = cost.pop("chosen"), cost.pop("chosen_reading_whole")
    return {
        **cost,
        "shares_chosen_by_both": list(map(trial.share_of_bytes, ours, whole)),
        "shares_chosen_in_other_batches": list(map(trial.share_of_bytes, in_other_batches, whole)),
    }


def _beams(trial: Trial) -> dict[str, Any]:
    """Search unit by unit as the paper does, keeping ten configurations; and keeping one."""
    num_rounds = len(trial.units)
    return {
        "model": trial.subject.name,
        "num_units": num_rounds,
        "ends": {name: _summary(judged) for name, judged in _ends(trial).items()},
        "cost": _cost(trial, num_rounds),
        "widths": {
            str(width): {
                by: list(map(_summary, _curve(trial, by, num_rounds, beam_width=width)))
                for by in SCORES
            }
            for width in WIDTHS
        },
    }
