"""Measure how long the gate of a mix takes, by what is known beforehand.

The mix is the demo's, of three experts and without a finetune, and the gate is the function that
the gate step calls. Each row begins with empty caches, but for what it says:

- `nothing known`: nobody has measured the experts, and the gate starts an engine;
- `cold`: the experts were measured when they were registered;
- `cold beside its preview`: also an engine with the mix runs already, as is usual;
- `warm`, `warm beside its preview`: the same gate again;
- `extension`: a mix of two experts has passed its gate, and is extended by the third.

All rows must come to the same verdict, and those of one mix to the same figures.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from assembler.evaluation import parent_measurements
from engine.vllm_build import vllm_package
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.faults import judging, subjects
from tests.benchmarks.faults.judging import Verdict
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.faults.subjects import Subject
from tests.benchmarks.harness import reports

NAME = "mix-gate"
PACKAGES = ("nexusmix", "torch", vllm_package())
NOTHING, COLD, WARM, EXTENSION = "nothing known", "cold", "warm", "extension"
BESIDE = " beside its preview"
MOST_SECONDS = {COLD + BESIDE: 60.0, WARM + BESIDE: 20.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A gate: its seconds, and what it came to."""

    seconds: float
    verdict: Verdict


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "seconds of the gate of a mix, by what is known beforehand")
    chosen = reports.chosen(parser, argv)
    maker = subjects.of_tiny() if chosen.quick else subjects.of_demo()
    mix, extended = maker.make(), maker.extend()
    base = maker.make(experts=mix.inputs.recipe.domains[:-1])
    positions = range(len(mix.inputs.recipe.experts))
    rows: dict[str, Row] = {}
    with _empty_home(mix) as store:
        rows[NOTHING] = _gate(mix, store)
    with _empty_home(mix) as store:
        registrations = [_register(mix, position, store) for position in positions]
        rows[COLD] = _gate(mix, store)
        rows[WARM] = _gate(mix, store)
        _gate(base, store)
        rows[EXTENSION] = _gate(extended, store)
    with _empty_home(mix) as store, _preview(mix, store) as engine:
        for position in positions:
            _register(mix, position, store)
        rows[COLD + BESIDE] = _gate(mix, store, engine)
        rows[WARM + BESIDE] = _gate(mix, store, engine)
    for name, row in rows.items():
        reports.say(f"{name}: {row.seconds:.1f} s")
    of_mix = [row.verdict for name, row in rows.items() if name != EXTENSION]
    figures: dict[str, Any] = {
        "mix": mix.name,
        "measured_at_registration": reports.summary(registrations, digits=1),
        "seconds": {name: round(row.seconds, 1) for name, row in rows.items()},
        "passed": all(not row.verdict.seen_by for row in rows.values()),
        "same_figures": all(verdict.figures == of_mix[0].figures for verdict in of_mix),
    }
    bars = [
        Bar(f"seconds of the gate, {name}", rows[name].seconds, "<=", limit)
        for name, limit in MOST_SECONDS.items()
    ]
    return reports.write(
        chosen.output, figures=figures, bars=[] if chosen.quick else bars, packages=PACKAGES
    )


def _gate(subject: Subject, store: BlobStore, engine: Server | None = None) -> Row:
    began = time.monotonic()
    verdict = judging.by_gate(subject, store, find_server=lambda _: engine)
    return Row(seconds=time.monotonic() - began, verdict=verdict)


def _register(subject: Subject, position: int, store: BlobStore) -> float:
    """Measure an expert as its registration does, and return the seconds."""
    parts = subject.inputs.parts(store)
    began = time.monotonic()
    parent_measurements.measure(
        parts.experts[position],
        parts.documents[position],
        seed=parts.seed,
        general=subject.general,
        blobs=store,
    )
    return time.monotonic() - began


@contextmanager
def _empty_home(subject: Subject) -> Iterator[BlobStore]:
    with own_home(subject.blobs, caches=()) as store:
        yield store


@contextmanager
def _preview(subject: Subject, store: BlobStore) -> Iterator[Server]:
    log_path = settings().home / "preview.log"
    with vllm_process.serving(subject.assembled, blobs=store, log_path=log_path) as engine:
        engine.wait_ready()
        yield engine
