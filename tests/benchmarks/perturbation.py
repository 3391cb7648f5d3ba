"""Small perturbations: which metrics notice that the smallest weights were pruned, not random ones.

Divergent Token Metrics (arXiv 2311.01544) prunes 0.1 % of one component, once the smallest weights
and once as many random weights. The first should do less harm. The models here are SmolLM2-135M,
one expert, and a mix of three. The seed was stored in four bits, so its components have zeros
already; only other weights are pruned.

A trial is a component and a draw of random weights. Each metric is measured for both prunings on
every prefix. A metric tells the prunings apart if the 95 % interval of its mean difference over
resampled prefixes is above zero; it misleads if the interval is below zero. Perplexity is measured
on the prefixes, which are held-out text. One pass over prefix and continuation gives all metrics.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assembler.compression.layerwise import LayerwiseReader, States
from assembler.evaluation import reference_cache
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.batches import TokenReader, sample_windows
from engine.divergence.aggregates import INTERVAL_PERCENTILES, RESAMPLES, SEED, summarize
from engine.divergence.metrics import Continuation, Reading, Tokens, compare, perplexity
from registry.checkpoints.manifests import Manifest, json_digest
from service.demo.bars import Bar
from tests.benchmarks.harness import demo_mix, reports
from tests.benchmarks.harness.cached_results import once
from tests.benchmarks.harness.demo_mix import DemoMix

NAME = "perturbation"
PACKAGES = ("nexusmix", "torch")
# Raise it when cached results of earlier runs are no longer valid.
VERSION = 1
SHARE = 0.001
METRICS = ("fdt", "sdt", "dppl", "perplexity")
# Modules of one block. A mix has a shared expert and routed ones; the first represents them all.
PARTS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    *(f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")),
    *(f"mlp.experts.0.{name}_proj" for name in ("gate", "up", "down")),
)

# The harm of a pruning to each prefix, by metric.
Harms = Mapping[str, NDArray[np.float64]]
Choose = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a measurement: prefixes, tokens, blocks, draws of random weights, components."""

    prefixes: int
    prefix_tokens: int
    completion_tokens: int
    blocks: int
    draws: int
    components: int | None


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "0.1 % of a component pruned: which metrics tell how; can be interrupted"
    )
    parser.add_argument("--prefixes", type=int, default=24, help="of all domains together")
    parser.add_argument("--prefix-tokens", type=int, default=32)
    parser.add_argument("--completion-tokens", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2, help="spread over the network")
    parser.add_argument("--draws", type=int, default=2, help="of random weights, by component")
    parser.add_argument("--components", type=int, help="at most, of each model")
    chosen = vars(reports.chosen(parser, argv))
    output, is_quick = chosen.pop("output"), chosen.pop("quick")
    size = Size(**chosen)
    if is_quick:
        size = Size(
            prefixes=9, prefix_tokens=16, completion_tokens=32, blocks=2, draws=2, components=None
        )
    torch.set_num_threads(1)
    demo = demo_mix.of_random_llamas() if is_quick else demo_mix.smollm2_135m()
    expert = next(iter(demo.experts))
    subjects = {
        "seed": demo.seed,
        f"expert {expert}": demo.experts[expert],
        f"nexus mix of {len(demo.experts)}": demo.mix,
    }
    prefixes = _prefixes(demo, size)
    by_name = {name: measure(demo, manifest, prefixes, size) for name, manifest in subjects.items()}
    figures = {
        "model": demo.name,
        "domains": list(demo.documents),
        "threads": torch.get_num_threads(),
        "pruned_share": SHARE,
        "prefixes": len(prefixes),
        "tokens": {"prefix": size.prefix_tokens, "completion": size.completion_tokens},
        "subjects": by_name,
    }
    bars = []
    for name, subject in by_name.items():
        low = subject["told_apart"]["fdt"]["share_right"][1]
        bars.append(Bar(f"{name}: FDT has the sign right, low end", low, ">=", 0.5))
        low = subject["told_apart"]["perplexity"]["share_right"][1]
        bars.append(Bar(f"{name}: perplexity has, low end", low, "<", 0.5))
    return reports.write(output, figures=figures, bars=[] if is_quick else bars, packages=PACKAGES)


def measure(
    demo: DemoMix, manifest: Manifest, prefixes: Sequence[Tokens], size: Size
) -> dict[str, Any]:
    """Return the results of all trials of one checkpoint."""
    key = [VERSION, manifest.digest, [list(tokens) for tokens in prefixes], size.completion_tokens]
    subject = _Subject(demo, manifest, prefixes, size)
    components: dict[str, Any] = {}
    trials: list[tuple[str, Harms]] = []
    for layer, name in _components(manifest, size):
        component = once(NAME, [key, name, size.draws], partial(subject.prune, name, layer))
        less, worse = component.pop("harms")
        differences = [
            {metric: np.subtract(draw[metric], less[metric]) for metric in METRICS}
            for draw in worse
        ]
        trials += [(name, each) for each in differences]
        verdicts = [{metric: _verdict(each[metric]) for metric in METRICS} for each in differences]
        components[name] = component | {"told_apart": verdicts}
        reports.say(f"{name}: {verdicts}")
    return {
        "unpruned": once(NAME, key, subject.unpruned),
        "trials": len(trials),
        "told_apart": {metric: told_apart(trials, metric) for metric in METRICS},
        "components": components,
    }


class _Subject:
    """A network and its greedy texts, which are loaded only if a result is not cached."""

    def __init__(
        self, demo: DemoMix, manifest: Manifest, prefixes: Sequence[Tokens], size: Size
    ) -> None:
        self._demo, self._manifest, self._prefixes, self._size = demo, manifest, prefixes, size

    @cached_property
    def network(self) -> Network:
        return Network.from_manifest(self._manifest, self._demo.blobs, dtype=torch.float32)

    @cached_property
    def texts(self) -> list[Continuation]:
        return reference_cache.continuations(
            json_digest([self._manifest.digest, []]),
            self._prefixes,
            num_tokens=self._size.completion_tokens,
            load=lambda: network_runner.runner(self.network),
        )

    @cached_property
    def reader(self) -> LayerwiseReader:
        """A reader of the texts from their second token on, so that prefixes are predicted too."""
        whole = [Continuation(c.prefix[:1], c.prefix[1:] + c.tokens) for c in self.texts]
        return LayerwiseReader(self.network, whole)

    @cached_property
    def states(self) -> States:
        return self.reader.states()

    def unpruned(self) -> dict[str, Any]:
        depth = self.network.architecture.num_hidden_layers
        return _figures(self.texts, self.reader.read(self.states, layer=depth))

    def prune(self, name: str, layer: int) -> dict[str, Any]:
        """Return figures, and the harm to each prefix, of pruning smallest and random weights."""
        weight = self.network.get_parameter(f"{name}.weight")

        def read(choose: Choose) -> list[Reading]:
            with pruned(weight, choose):
                return self.reader.read(self.states, layer=layer)

        least = read(smallest)
        drawn = [read(at_random([layer, *name.encode(), i])) for i in range(self._size.draws)]
        return {
            "weights": weight.numel(),
            "zero_before": round(float((weight == 0).float().mean()), 4),
            "smallest": _figures(self.texts, least),
            "random": [_figures(self.texts, readings) for readings in drawn],
            "harms": [
                harms(self.texts, least),
                [harms(self.texts, readings) for readings in drawn],
            ],
        }


@contextmanager
def pruned(weight: Tensor, choose: Choose) -> Iterator[None]:
    """Set 0.1 % of a matrix to zero until the end of the block.

    At least one weight is pruned, and at most all that are not zero.
    """
    before = weight.data
    flat = before.flatten().clone()
    candidates = flat.nonzero()[:, 0]
    count = min(len(candidates), max(1, round(SHARE * flat.numel())))
    flat[candidates[choose(flat[candidates], count)]] = 0
    weight.data = flat.view_as(before)
    try:
        yield
    finally:
        weight.data = before


def smallest(values: Tensor, count: int) -> Tensor:
    """Return the positions of the smallest numbers by magnitude; the first of equal ones."""
    return values.abs().argsort(stable=True)[:count]


def at_random(entropy: Sequence[int]) -> Choose:
    """Return a function that chooses random positions, drawn with this entropy."""

    def choose(values: Tensor, count: int) -> Tensor:
        drawn = np.random.default_rng(entropy).choice(len(values), count, replace=False)
        return torch.from_numpy(drawn)

    return choose


def harms(texts: Sequence[Continuation], whole: Sequence[Reading]) -> dict[str, list[float]]:
    """Return the harm to each prefix by metric; perplexities are logarithms.

    The readings `whole` begin in the prefix.
    """
    compared = [
        (compare(text, _of_continuation(text, reading)), _of_prefix(text, reading))
        for text, reading in zip(texts, whole, strict=True)
    ]
    return {
        "fdt": [-float(divergence.fdt) for divergence, _ in compared],
        "sdt": [float(divergence.sdt) for divergence, _ in compared],
        "dppl": [math.log(divergence.dppl) for divergence, _ in compared],
        "perplexity": [-float(np.mean(logprobs)) for _, logprobs in compared],
    }


def told_apart(trials: Sequence[tuple[str, Harms]], metric: str) -> dict[str, Any]:
    """Return how well a metric tells the prunings apart, over all trials of a model.

    `share_right` is the share of differences with the right sign, where zero counts half. Its
    interval is over components, since the trials of one share a pruning. The interval of
    `mean_difference` is over prefixes.
    """
    differences = [harm[metric] for _, harm in trials]
    verdicts = [_verdict(harm) for harm in differences]
    signs: dict[str, list[float]] = {}
    for (name, _), harm in zip(trials, differences, strict=True):
        signs.setdefault(name, []).append((np.sign(harm.mean()) + 1) / 2)
    shares = np.array([np.mean(each) for each in signs.values()])
    pooled = np.mean(differences, axis=0)
    return {
        "right": sum(bool(harm.mean() > 0) for harm in differences),
        "equal": sum(bool(harm.mean() == 0) for harm in differences),
        "wrong": sum(bool(harm.mean() < 0) for harm in differences),
        "share_right": [round(float(x), 3) for x in (shares.mean(), *_interval(shares))],
        "tells": verdicts.count("tells"),
        "misleads": verdicts.count("misleads"),
        "mean_difference": [float(f"{x:.3g}") for x in (pooled.mean(), *_interval(pooled))],
    }


def _verdict(differences: NDArray[np.float64]) -> str:
    low, high = _interval(differences)
    return "tells" if low > 0 else "misleads" if high < 0 else "neither"


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by resampling."""
    drawn = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(-1), INTERVAL_PERCENTILES).tolist()
    return low, high


def _figures(texts: Sequence[Continuation], whole: Sequence[Reading]) -> dict[str, Any]:
    readings = [_of_continuation(text, reading) for text, reading in zip(texts, whole, strict=True)]
    summary = summarize(texts, readings)
    held_out = [x for pair in zip(texts, whole, strict=True) for x in _of_prefix(*pair)]
    return {
        "fdt_mean": round(summary.fdt.mean, 3),
        "fdt_interval": summary.fdt.interval and [round(x, 3) for x in summary.fdt.interval],
        "sdt_mean": round(summary.sdt.mean, 4),
        "dppl": round(summary.perplexity, 6),
        "perplexity": round(perplexity(held_out), 5),
    }


def _of_continuation(text: Continuation, whole: Reading) -> Reading:
    start = len(text.prefix) - 1
    return Reading(whole.predicted[start:], whole.logprobs[start:])


def _of_prefix(text: Continuation, whole: Reading) -> tuple[float, ...]:
    return whole.logprobs[: len(text.prefix) - 1]


def _components(manifest: Manifest, size: Size) -> list[tuple[int, str]]:
    """Return layer and module of each component, in blocks spread over the network."""
    number = manifest.architecture.num_hidden_layers
    spread = [(2 * i + 1) * number // (2 * size.blocks) for i in range(size.blocks)]
    components = [
        (layer, f"model.layers.{layer}.{part}")
        for layer in spread
        for part in PARTS
        if f"model.layers.{layer}.{part}.weight" in manifest.tensors
    ]
    return components[: size.components]


def _prefixes(demo: DemoMix, size: Size) -> list[Tokens]:
    """Return held-out prefixes, equally many of each domain."""
    reader = TokenReader.of(demo.seed, demo.blobs)
    count = math.ceil(size.prefixes / len(demo.documents))
    prefixes: list[Tokens] = []
    for documents in demo.documents.values():
        windows = reader.windows(documents, split="held-out", length=size.prefix_tokens)
        prefixes += [tuple(w) for w in sample_windows(windows, count=count).tolist()]
    return prefixes[: size.prefixes]


if __name__ == "__main__":
    sys.exit(main())
