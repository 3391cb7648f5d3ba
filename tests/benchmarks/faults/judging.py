"""Judge candidates with the checks of the product and the gate between two models."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from assembler.evaluation import comparison, mix_gate, reference_cache
from assembler.evaluation.comparison_request import Served, Stored
from assembler.evaluation.comparison_sides import OpenedSide, open_subject
from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence import noise
from engine.divergence.aggregates import Summary
from engine.divergence.metrics import Continuation, Reading, Tokens, perplexity
from engine.divergence.runners import Runner
from engine.divergence.server_runner import ServerRunner
from engine.gates import comparison_gate
from engine.gates.comparison_gate import DivergenceReport, DomainReadings, ModelPolicy, Side
from engine.gates.gate_limits import DIFFERENCE_SLACK
from engine.gates.policy import MAX_FLOAT32_DIFFERENCE
from engine.vllm_plugin import model_folder
from registry.blobs.blobs import BlobStore, LocalBlobs
from registry.checkpoints import byte_checks, manifests
from registry.checkpoints.manifests import Manifest, json_digest
from registry.errors import NexusmixError
from registry.settings import settings
from tests.benchmarks.faults.staging import own_home, serving
from tests.benchmarks.harness.cached_results import once
from tests.benchmarks.harness.demo_mix import DemoMix

NAME = "faults"
# Raise it when cached results of earlier runs are no longer valid.
VERSION = 2
REFERENCE = "mix@1"
PREFIX_TOKENS, WINDOW_TOKENS = 48, 128
# Limits on the held-out perplexity of a domain: over the seed's (as in the gate of a mix), and over
# the reference's (as the gate limits DPPL).
MAX_RATIO_TO_SEED, MAX_RATIO_TO_REFERENCE = 1.02, 1.01

# The largest error of a rounded figure.
ROUNDED = 0.005

Check = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgment of a candidate.

    `refusals` are the messages of checks by name, `failed` the failed metrics, and `figures` the
    worst over all domains.
    """

    refusals: Mapping[str, str]
    failed: tuple[str, ...]
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object for the result."""
        return {
            "refused": dict(self.refusals),
            "failed": list(self.failed),
            "figures": dict(self.figures),
        }


class Gate:
    """The gate with a reference: its texts, its noise, and its and the seed's perplexities."""

    def __init__(self, demo: DemoMix, *, prompts: int, tokens: int, windows: int) -> None:
        self.demo = demo
        self.policy = ModelPolicy(
            prompts_per_domain=prompts,
            prefix_tokens=PREFIX_TOKENS,
            completion_tokens=tokens,
            # This equals the smallest allowed share of equal tokens.
            max_sdt=tokens / 100,
            # The limit of the gate of a mix for a mix served in float32.
            max_logprob_difference=MAX_FLOAT32_DIFFERENCE,
        )
        stored = Stored(ref=REFERENCE, manifest_digest=manifests.store(demo.blobs, demo.mix))
        self.reference = open_subject(stored, demo.blobs)
        self.prompts = self._prefixes(length=PREFIX_TOKENS, count=prompts)
        self.windows = {
            domain: [Continuation(window[:1], window[1:]) for window in prefixes]
            for domain, prefixes in self._prefixes(length=WINDOW_TOKENS, count=windows).items()
        }
        self.key = [VERSION, demo.mix.digest, self.policy.model_dump(mode="json"), windows]
        load = cache(self.reference.load)
        self.texts = {
            domain: reference_cache.continuations(
                self.reference.key, prefixes, num_tokens=tokens, load=load
            )
            for domain, prefixes in self.prompts.items()
        }
        self.varied = self._varied("network", lambda texts: noise.variations(load(), texts))
        self.perplexity = self._known_perplexities("mix", load)
        self.seed_perplexity = self._known_perplexities(
            "seed", lambda: _network(demo.seed, demo.blobs)
        )

    def beyond_floor(self, figures: Mapping[str, float], *, is_served: bool) -> list[str]:
        """Return the metrics by which a candidate differs more than the reference from itself.

        That is the requirement for the same model made again (`min_equal_share=1`, where the noise
        floor allows it).
        """
        if not figures:
            return []
        floors = [
            noise.floor(texts, self._variations(domain, is_served=is_served))
            for domain, texts in self.texts.items()
        ]
        limits = {
            "sdt": figures["sdt_mean"] <= max(f.sdt.mean for f in floors) + ROUNDED,
            "fdt_mean": figures["fdt_mean"] >= min(f.fdt.mean for f in floors) - ROUNDED,
            "logprob_difference": figures["logprob_difference"]
            <= DIFFERENCE_SLACK * max(_difference(f) for f in floors),
        }
        return [name for name, kept in limits.items() if not kept]

    def add_served_noise(self) -> None:
        """Measure the noise of the undamaged reference on a server."""

        def served(texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
            with own_home(self.demo) as store, serving(self.demo.mix, store) as running:
                return {noise.SERVED: running.runner().read(texts)}

        for domain, readings in self._varied("engine", served).items():
            self.varied[domain] |= readings

    def stored(
        self, manifest: Manifest, store: LocalBlobs, *, damaged: str | None = None
    ) -> Verdict:
        """Judge a checkpoint in the reference network.

        `damaged` is the digest of a blob whose bytes may be wrong.
        """
        refusals = self.stored_refusals(manifest, store, damaged=damaged)
        if "config" in refusals:
            return Verdict(refusals=refusals, failed=(), figures={})
        try:
            runner = _network(manifest, store)
        except (NexusmixError, RuntimeError) as error:
            return Verdict(refusals=refusals | {"load": words(error)}, failed=(), figures={})
        return self.judge(runner, refusals, is_served=False)

    def stored_refusals(
        self, manifest: Manifest, store: LocalBlobs, *, damaged: str | None = None
    ) -> dict[str, str]:
        known = self.demo.digests - {damaged}
        subject = Stored(ref="candidate", manifest_digest=manifests.store(store, manifest))
        return _refusals(
            {
                "config": lambda: manifest.architecture,
                "digests": lambda: byte_checks.verify(store, manifest, known=known),
                "routers": lambda: mix_gate.check_routers(manifest, store),
                "files": lambda: mix_gate.check_files(manifest, self.demo.seed),
                "comparison": lambda: self._compare_words(open_subject(subject, store)),
            }
        )

    def served(self, address: str, model: str, refusals: Mapping[str, str]) -> Verdict:
        """Judge the answers of a server, even if a check has refused its folder."""
        every = {**refusals, **self.served_refusals(address, model)}
        return self.judge(ServerRunner(f"{address}/v1", model), every, is_served=True)

    def served_refusals(self, address: str, model: str) -> dict[str, str]:
        subject = Served(address=f"{address}/v1", model=model)
        return _refusals(
            {"comparison": lambda: self._compare_words(open_subject(subject, self.demo.blobs))}
        )

    def judge(self, runner: Runner, refusals: Mapping[str, str], *, is_served: bool) -> Verdict:
        report = comparison_gate.judge(
            self.policy,
            reference=Side(name=REFERENCE, digest=json_digest(self.key)),
            # Verdicts are keyed by the name of the fault, so the digest is not needed.
            candidate=Side(name="candidate", digest=""),
            domains=[
                DomainReadings(
                    domain=domain,
                    continuations=texts,
                    variations=self._variations(domain, is_served=is_served),
                    candidate=runner.read(texts),
                )
                for domain, texts in self.texts.items()
            ],
            decode=self.reference.vocabulary.decode,
        )
        perplexities = self._perplexities(runner)
        ratios = {
            "perplexity_to_reference": _worst_ratio(perplexities, self.perplexity),
            "perplexity_to_seed": _worst_ratio(perplexities, self.seed_perplexity),
        }
        failed = list(dict.fromkeys(failure.metric for failure in report.failures))
        # A candidate need not meet a limit that the reference itself misses.
        reached = max(1.0, _worst_ratio(self.perplexity, self.seed_perplexity))
        limits = (MAX_RATIO_TO_REFERENCE, MAX_RATIO_TO_SEED * reached)
        # With this comparison NaN fails.
        failed += [
            name
            for (name, value), most in zip(ratios.items(), limits, strict=True)
            if not value <= most
        ]
        return Verdict(refusals=refusals, failed=tuple(failed), figures=_figures(report) | ratios)

    def _variations(self, domain: str, *, is_served: bool) -> dict[str, list[Reading]]:
        return {
            name: readings
            for name, readings in self.varied[domain].items()
            if is_served or name != noise.SERVED
        }

    def _compare_words(self, candidate: OpenedSide) -> None:
        comparison.check_comparable(self.reference, candidate, self.prompts, self.policy)

    def _prefixes(self, *, length: int, count: int) -> dict[str, list[Tokens]]:
        return {
            domain: self.reference.vocabulary.prefixes(documents, length=length, count=count)
            for domain, documents in self.demo.documents.items()
        }

    def _varied(
        self, source: str, make: Callable[[Sequence[Continuation]], dict[str, list[Reading]]]
    ) -> dict[str, dict[str, list[Reading]]]:
        """Return noisy readings by domain and variation, cached if they were read before."""
        texts = list(chain.from_iterable(self.texts.values()))
        by_variation = reference_cache.noisy_readings(
            json_digest([NAME, source, self.key]), texts, make
        )
        readings = {name: iter(rows) for name, rows in by_variation.items()}
        return {
            domain: {name: list(islice(rest, len(texts))) for name, rest in readings.items()}
            for domain, texts in self.texts.items()
        }

    def _known_perplexities(self, name: str, load: Callable[[], Runner]) -> dict[str, float]:
        perplexities: dict[str, float] = once(
            NAME, ["perplexity", name, self.key], lambda: self._perplexities(load())
        )
        return perplexities

    def _perplexities(self, runner: Runner) -> dict[str, float]:
        return {
            domain: perplexity([x for reading in runner.read(texts) for x in reading.logprobs])
            for domain, texts in self.windows.items()
        }


def folder_refusals(folder: Path, manifest: Manifest) -> dict[str, str]:
    return _refusals({"folder": lambda: model_folder.check(folder, manifest)})


@dataclass(frozen=True)
class Batched:
    """A runner that reads texts in batches of `size`, optionally in reverse order."""

    runner: Runner
    size: int
    backwards: bool

    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        return self.runner.write(prefixes, num_tokens=num_tokens)

    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        step = -1 if self.backwards else 1
        texts = continuations[::step]
        readings: list[Reading] = []
        for start in range(0, len(texts), self.size):
            readings += self.runner.read(texts[start : start + self.size])
        return readings[::step]


def _network(manifest: Manifest, store: BlobStore) -> Runner:
    return network_runner.runner(Network.from_manifest(manifest, store, dtype=torch.float32))


def _refusals(checks: Mapping[str, Check]) -> dict[str, str]:
    refused = {}
    for name, check in checks.items():
        try:
            check()
        except (NexusmixError, RuntimeError) as error:
            refused[name] = words(error)
    return refused


def words(error: Exception) -> str:
    """Return the first line of an error and its first problem, without paths of the machine."""
    problems = getattr(error, "problems", ())
    text = str(getattr(error, "detail", error)).strip().splitlines()[0]
    text = text.replace(str(settings().home), "HOME")
    return f"{text}: {problems[0].pointer} {problems[0].detail}" if problems else text


def _figures(report: DivergenceReport) -> dict[str, float]:
    """Return the figures of the worst domain."""
    summaries = [domain.candidate for domain in report.domains]
    pairs = [(domain.candidate, domain.noise_floor) for domain in report.domains]
    return {
        "fdt_75": min(x.fdt.p75 for x in summaries),
        "fdt_mean": round(min(x.fdt.mean for x in summaries), 4),
        "sdt_mean": round(max(x.sdt.mean for x in summaries), 4),
        "equal_share": round(min(x.equal_share for x in summaries), 4),
        "dppl_ratio": _short(max(x.perplexity / floor.perplexity for x, floor in pairs)),
        "logprob_difference": float(f"{max(map(_difference, summaries)):.3g}"),
    }


def _difference(summary: Summary) -> float:
    assert summary.logprob_difference is not None
    return summary.logprob_difference


def _worst_ratio(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return _short(max(one[domain] / other[domain] for domain in one))


def _short(value: float) -> float:
    """Round to four digits behind the point, or to three significant digits if it is large."""
    return round(value, 4) if value < 1e4 and math.isfinite(value) else float(f"{value:.3g}")
