"""Compute the figures of a network: perplexities, share of the right experts' gain, routing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims.estimates import Sample, over_text
from tests.benchmarks.claims.families.windows import GENERAL
from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.reading import Reading


def of_network(
    mixes: Mixes, network: Mix | Manifest, domains: Sequence[str], *, asks: bool = False
) -> dict[str, Any]:
    """Return held-out figures on `domains` and on general text.

    `asks` adds the share of right answers. `share_of_gain` has an interval over text. It compares
    the gain over the seed in mean log-perplexity with the gain of the right expert of each domain.
    """
    reading = mixes.read(network)
    measured = _of_reading(mixes, reading, domains)
    if asks and mixes.has_questions:
        answers = {name: mixes.answers(network, name) for name in domains}
        measured["true_continuation"] = _of_answers(answers)
    if experts := mixes.manifest(network).architecture.expert_names:
        measured["routing"] = {n: [round(x, 3) for x in reading.routing[n]] for n in domains}
        measured["to_own_expert"] = round(to_own(reading, experts, domains), 3)
    return measured


def of_mix(mixes: Mixes, mix: Mix, *, asks: bool = False) -> dict[str, Any]:
    """Return the figures of a mix on the domains of its experts, with its costs."""
    made = mixes.make(mix)
    measured = of_network(mixes, mix, mix.experts, asks=asks)
    return measured | {"cpu_seconds": made.cpu_seconds, "new_bytes": made.new_bytes}


def oracle(mixes: Mixes, domains: Sequence[str], *, asks: bool = False) -> dict[str, Any]:
    """Return figures of right experts: each reads its domain, and the seed reads general text."""
    family = mixes.family
    readers = {name: family.experts[name] for name in domains} | {GENERAL: family.seed}
    measured = of_readers(mixes, readers)
    if asks and mixes.has_questions:
        answers = {name: mixes.answers(family.experts[name], name) for name in domains}
        measured["true_continuation"] = _of_answers(answers)
    return measured


def of_readers(mixes: Mixes, readers: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return figures where each domain is read by a network of its own, and general text too."""
    readings = {name: mixes.read(manifest) for name, manifest in readers.items()}
    return _of_reading(
        mixes,
        Reading(
            losses={name: reading.losses[name] for name, reading in readings.items()},
            hits={name: reading.hits[name] for name, reading in readings.items()},
            routing={},
        ),
        [name for name in readers if name != GENERAL],
    )


def of_choices(mixes: Mixes, choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return figures where an expert is chosen for each window; `choices` has general text too."""
    domains = [name for name in choices if name != GENERAL]
    readings = {name: mixes.read(expert) for name, expert in mixes.family.experts.items()}
    measured = _of_reading(
        mixes,
        Reading(
            losses={
                name: [readings[expert].losses[name][at] for at, expert in enumerate(chosen)]
                for name, chosen in choices.items()
            },
            hits={
                name: [readings[expert].hits[name][at] for at, expert in enumerate(chosen)]
                for name, chosen in choices.items()
            },
            routing={},
        ),
        domains,
    )
    right = [chosen == name for name in domains for chosen in choices[name]]
    return measured | {"to_own_expert": round(float(np.mean(right)), 3)}


def _of_reading(mixes: Mixes, reading: Reading, domains: Sequence[str]) -> dict[str, Any]:
    losses = sample(reading, domains)
    seed, right = sample(mixes.read(mixes.family.seed), domains), right_experts(mixes, domains)
    return {
        "perplexity": {name: _perplexity(reading, name) for name in (*domains, GENERAL)},
        "mean_log_perplexity": over_text(lambda x: x, losses).rounded(),
        "share_of_gain": over_text(share_of_gain, losses, seed, right).rounded(),
        "accuracy": round(float(np.mean([np.mean(reading.hits[n]) for n in domains])), 4),
    }


def _of_answers(answers: Mapping[str, Sequence[bool]]) -> list[float]:
    """Return the share of right answers over all domains, with its interval."""
    given = np.concatenate(list(answers.values())).astype(float)
    return over_text(lambda x: x, given).rounded()


def share_of_gain(
    losses: NDArray[np.float64], seed: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a network's share of the right experts' gain, from log-perplexities."""
    return (seed - losses) / (seed - right)


def ratio(losses: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of two perplexities, from their logarithms."""
    return np.exp(losses - other)


def sample(reading: Reading, domains: Sequence[str]) -> Sample:
    """Return the loss of each window, as the mean over domains."""
    return np.asarray(np.mean([reading.losses[name] for name in domains], axis=0))


def right_experts(mixes: Mixes, domains: Sequence[str]) -> Sample:
    """Return the loss of each window by the right experts, as the mean over domains."""
    experts = mixes.family.experts
    return np.asarray(np.mean([mixes.read(experts[name]).losses[name] for name in domains], axis=0))


def to_own(reading: Reading, experts: Sequence[str], domains: Sequence[str]) -> float:
    """Return the share of routing decisions on `domains` for the expert of the domain."""
    return float(np.mean([reading.routing[n][experts.index(n)] for n in domains]))


def _perplexity(reading: Reading, name: str) -> float:
    return round(math.exp(float(np.mean(reading.losses[name]))), 3)
