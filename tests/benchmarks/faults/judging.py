"""Judge a mix by the gate of the product, and say which of its stages saw a fault."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any
from unittest import mock

import torch
from threadpoolctl import threadpool_limits

from assembler.evaluation.construction import REFUSED
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.evaluation.runner_errors import as_ours
from assembler.jobs import pipeline
from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Reading
from engine.divergence.runners import Runner
from engine.gates.mix_gate import GateReport
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.errors import NexusmixError, Unavailable
from registry.settings import settings
from tests.benchmarks.faults.subjects import Subject

NAME = "faults"
# Raise it when cached results of earlier runs are no longer valid.
VERSION = 3
# It says nothing about the mix.
TOO_SLOW = "is not ready after"
# What an error that ends the gate says, and the stage that it comes from.
ENDS = {
    "the mix has other files than its seed": "files",
    "a router does not know an expert": "routers",
    "was changed: remove it": "the engine's folder",
    "stored bytes were changed": "the engine's loading",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says: the stages that refuse, none of an accepted mix, and their words.

    `figures` are the worst of each metric over all domains, by stage and metric.
    """

    seen_by: tuple[str, ...]
    words: str
    figures: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object for the result."""
        return asdict(self)


def by_gate(
    subject: Subject,
    store: BlobStore,
    checkpoints: GateCheckpoints | None = None,
    *,
    find_server: Callable[[Manifest], Server | None] = lambda candidate: None,
) -> Verdict:
    """Judge a mix, or checkpoints in its place, with the function that the gate step calls.

    `find_server` returns an engine that serves the mix already.
    """
    try:
        with as_ours():
            report = pipeline.gate(
                checkpoints or subject.checkpoints,
                subject.inputs,
                general=subject.general,
                blobs=store,
                log_path=settings().home / "server.log",
                find_server=find_server,
                on_progress=lambda *_: None,
            )
    except NexusmixError as error:
        return refused(error)
    return Verdict(
        seen_by=tuple(dict.fromkeys(failure.metric for failure in report.failures)),
        words="; ".join(map(str, report.failures[:1])),
        figures=_figures(report),
    )


def in_place_of(subject: Subject, damaged: Manifest) -> GateCheckpoints:
    """Return the checkpoints of a subject whose candidate is damaged."""
    if subject.finetuned is None:
        return replace(subject.checkpoints, assembled=damaged)
    return replace(subject.checkpoints, finetuned=damaged)


def refused(error: NexusmixError) -> Verdict:
    """Return the verdict of an error that ends the gate. Raises it where a machine was too slow."""
    if TOO_SLOW in error.detail:
        raise error
    return Verdict(seen_by=(_stage(error),), words=words(error), figures={})


def words(error: NexusmixError) -> str:
    """Return the first line of an error and its first problem, without paths of the machine."""
    text = error.detail.strip().splitlines()[0]
    text = text.replace(str(settings().home), "HOME")
    problems = error.problems
    return f"{text}: {problems[0].pointer} {problems[0].detail}" if problems else text


def _stage(error: NexusmixError) -> str:
    if error.detail.startswith(REFUSED):
        return f"construction, {error.detail.removeprefix(REFUSED).strip()}"
    found = (stage for text, stage in ENDS.items() if text in error.detail)
    other = "the engine" if isinstance(error, Unavailable) else type(error).__name__
    return next(found, other)


def _figures(report: GateReport) -> dict[str, float]:
    """Return the worst value of each metric over all texts."""
    metrics = [metric for domain in report.domains for metric in domain.metrics]
    metrics += [] if report.general is None else list(report.general.metrics)
    figures: dict[str, float] = {}
    for metric in metrics:
        name, value = f"{metric.stage}.{metric.metric}", float(f"{metric.value:.4g}")
        worst = min if metric.limit == "at least" else max
        figures[name] = worst(figures.get(name, value), value)
    return figures


@dataclass(frozen=True)
class Batched:
    """A runner that reads texts in batches of `size`, backwards, with a number of threads."""

    runner: Runner
    size: int
    threads: int

    def read(self, continuations: Any) -> list[Reading]:
        texts = continuations[::-1]
        readings: list[Reading] = []
        with threadpool_limits(self.threads):
            for start in range(0, len(texts), self.size):
                readings += self.runner.read(texts[start : start + self.size])
        return readings[::-1]


@contextmanager
def without_engine(size: int, threads: int) -> Iterator[None]:
    """Let the reference network read in place of the engine, in other batches and order.

    An engine takes half a minute to start, so not every undamaged mix gets one.
    """

    @contextmanager
    def serving(manifest: Manifest, *, blobs: BlobStore, **_: object) -> Iterator[mock.Mock]:
        network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        server = mock.Mock()
        server.runner = lambda: Batched(network_runner.runner(network), size, threads)
        yield server

    with mock.patch.object(vllm_process, "serving", serving):
        yield
