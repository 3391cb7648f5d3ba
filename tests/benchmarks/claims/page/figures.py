"""What is told of a network: perplexities, its share of the right experts' gain, its routing."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims.estimates import Sample, over_text
from tests.benchmarks.claims.mixes import GENERAL, Mix, Mixes
from tests.benchmarks.claims.reading import Reading


def of_network(
    mixes: Mixes, network: Mix | Manifest, domains: Sequence[str], *, asks: bool = False
) -> dict[str, Any]:
    """Held-out figures on `domains` and on general text, and with `asks` the share of questions
    answered well.

    `share_of_gain`, with its interval over text, is of what the right expert of each domain, by
    label, gains over the seed in mean log-perplexity.
    """
    reading = mixes.read(network)
    told = _of_reading(mixes, reading, domains)
    if asks and mixes.has_questions:
        answers = {name: mixes.answers(network, name) for name in domains}
        told["true_continuation"] = _of_answers(answers)
    if experts := mixes.manifest(network).architecture.expert_names:
        told["routing"] = {n: [round(x, 3) for x in reading.routing[n]] for n in domains}
        told["to_own_expert"] = round(to_own(reading, experts, domains), 3)
    return told


def of_mix(mixes: Mixes, mix: Mix, *, asks: bool = False) -> dict[str, Any]:
    """On the domains of its experts, with what it cost."""
    made = mixes.make(mix)
    told = of_network(mixes, mix, mix.experts, asks=asks)
    return told | {"cpu_seconds": made.cpu_seconds, "new_bytes": made.new_bytes}


def oracle(mixes: Mixes, domains: Sequence[str], *, asks: bool = False) -> dict[str, Any]:
    """As if every text were read by the expert of its domain, and general text by the seed."""
    family = mixes.family
    own = {name: family.experts[name] for name in domains} | {GENERAL: family.seed}
    readings = {name: mixes.read(manifest) for name, manifest in own.items()}
    told = _of_reading(
        mixes,
        Reading(
            losses={name: reading.losses[name] for name, reading in readings.items()},
            hits={name: reading.hits[name] for name, reading in readings.items()},
            routing={},
        ),
        domains,
    )
    if asks and mixes.has_questions:
        answers = {name: mixes.answers(family.experts[name], name) for name in domains}
        told["true_continuation"] = _of_answers(answers)
    return told


def _of_reading(mixes: Mixes, reading: Reading, domains: Sequence[str]) -> dict[str, Any]:
    losses = sample(reading, domains)
    seed, right = sample(mixes.read(mixes.family.seed), domains), right_experts(mixes, domains)
    return {
        "perplexity": {name: _perplexity(reading, name) for name in (*domains, GENERAL)},
        "mean_log_perplexity": over_text(lambda x: x, losses).told(),
        "share_of_gain": over_text(share_of_gain, losses, seed, right).told(),
        "accuracy": round(float(np.mean([np.mean(reading.hits[n]) for n in domains])), 4),
    }


def _of_answers(answers: Mapping[str, Sequence[bool]]) -> list[float]:
    """Over the domains."""
    given = np.concatenate(list(answers.values())).astype(float)
    return over_text(lambda x: x, given).told()


def share_of_gain(
    losses: NDArray[np.float64], seed: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of log-perplexities, those of a network, of the seed and of the right experts."""
    return (seed - losses) / (seed - right)


def ratio(losses: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of perplexities, by their logarithms."""
    return np.exp(losses - other)


def sample(reading: Reading, domains: Sequence[str]) -> Sample:
    """One loss per window, the mean over domains."""
    return np.asarray(np.mean([reading.losses[name] for name in domains], axis=0))


def right_experts(mixes: Mixes, domains: Sequence[str]) -> Sample:
    experts = mixes.family.experts
    return np.asarray(np.mean([mixes.read(experts[name]).losses[name] for name in domains], axis=0))


def to_own(reading: Reading, experts: Sequence[str], domains: Sequence[str]) -> float:
    """Share of the routing decisions on `domains` that chose the expert of the domain."""
    return float(np.mean([reading.routing[n][experts.index(n)] for n in domains]))


def _perplexity(reading: Reading, name: str) -> float:
    return round(math.exp(float(np.mean(reading.losses[name]))), 3)
