"""`./nexusmix bench faults`: see the package."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from engine.vllm_build import vllm_package
from service.demo.bars import Bar
from tests.benchmarks.faults import assembler_code, engines, rebuilds, stored, subjects
from tests.benchmarks.faults.judging import NAME, VERSION, Verdict, by_gate, in_place_of
from tests.benchmarks.faults.planted import Checkpoint, Plot, Store
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.faults.subjects import Subject
from tests.benchmarks.harness import reports
from tests.benchmarks.harness.cached_results import once

PACKAGES = ("nexusmix", "torch", vllm_package())
MIN_FAULTS = 50
# Rebuilds whose texts an engine reads, too.
SERVED_REBUILDS = 4

Try = tuple[str, str, Callable[[], Verdict]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "planted faults, and which stage of a mix's gate sees each; can be interrupted"
    )
    parser.add_argument(
        "--served-rebuilds", type=int, default=SERVED_REBUILDS, help="of the undamaged mixes"
    )
    parser.add_argument("--rebuilds", type=int, default=rebuilds.MIN_REBUILDS)
    names = [*engines.CODE, engines.AT_DEPLOYMENT.name]
    parser.add_argument(
        "--engine-faults", nargs="*", choices=names, default=names, help="starts an engine for each"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="a mix of tiny networks in place of the demo's"
    )
    chosen = reports.chosen(parser, argv)
    torch.set_num_threads(1)
    is_tiny = chosen.tiny or chosen.quick
    maker = subjects.of_tiny() if is_tiny else subjects.of_demo()
    untrained, finetuned = maker.make(), maker.make(tokens=subjects.finetune_tokens(is_tiny))
    faults = {
        name: {"where": where} | _kept([name, where, untrained.assembled.digest], judge)
        for name, where, judge in _faults(
            untrained,
            finetuned,
            subjects.of_tiny(trains="all").make(),
            in_engines=() if chosen.quick else chosen.engine_faults,
        )
    }
    undamaged = [
        {"name": subject.name, "served": served} | _kept(["rebuild", subject.name, served], judge)
        for subject, served, judge in rebuilds.first(
            chosen.rebuilds, num_served=0 if chosen.quick else chosen.served_rebuilds
        )
    ]
    unseen = [name for name, verdict in faults.items() if not verdict["seen_by"]]
    alarms = [verdict["name"] for verdict in undamaged if verdict["seen_by"]]
    figures = {
        "model": untrained.name,
        "domains": list(untrained.inputs.recipe.domains),
        "policy": untrained.inputs.recipe.gates.model_dump(mode="json"),
        "faults": faults,
        "seen_by": dict(_counts(faults)),
        "seen_by_construction": sum(
            stage.startswith("construction")
            for verdict in faults.values()
            for stage in verdict["seen_by"]
        ),
        "unseen": unseen,
        "rebuilds": undamaged,
        "alarms": alarms,
    }
    bars = [
        Bar("planted faults", len(faults), ">=", MIN_FAULTS),
        Bar("faults that no stage of the gate sees", len(unseen), "<=", 0),
        Bar("undamaged rebuilds", len(undamaged), ">=", rebuilds.MIN_REBUILDS),
        Bar("false alarms over them", len(alarms), "<=", 0),
    ]
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


def _faults(
    untrained: Subject, finetuned: Subject, averaged: Subject, *, in_engines: Collection[str]
) -> Iterator[Try]:
    for fault in (*stored.ASSEMBLED, *stored.FINETUNED):
        subject = untrained if fault.candidate == "assembled" else finetuned
        yield fault.name, fault.where, partial(of_checkpoint, subject, fault)
    for store in stored.STORES:
        yield store.name, store.where, partial(of_store, untrained, store)
    for code in assembler_code.FAULTS:
        yield code.name, code.where, partial(assembler_code.judge, averaged, code)
    for folder in engines.FOLDERS:
        yield folder.name, folder.where, partial(engines.of_folder, untrained, folder)
    for name, where in engines.CODE.items():
        if name in in_engines:
            yield name, where, partial(engines.of_code, untrained, name)
    late = engines.AT_DEPLOYMENT
    if late.name in in_engines:
        yield late.name, late.where, partial(engines.of_deployment, untrained, late)


def of_checkpoint(subject: Subject, fault: Checkpoint) -> Verdict:
    with own_home(subject.blobs) as store:
        damaged = fault.plant(Plot(subject, store))
        return by_gate(subject, store, in_place_of(subject, damaged))


def of_store(subject: Subject, fault: Store) -> Verdict:
    with own_home(subject.blobs) as store:
        fault.plant(Plot(subject, store))
        return by_gate(subject, store)


def _kept(name: list[Any], judge: Callable[[], Verdict]) -> dict[str, Any]:
    verdict: dict[str, Any] = once(NAME, [name, VERSION], lambda: judge().to_json())
    reports.say(f"{name[0]}, {name[1]}: {', '.join(verdict['seen_by'])} {verdict['words']}")
    return verdict


def _counts(faults: Mapping[str, Mapping[str, Any]]) -> Counter[str]:
    """Count the faults by the stage that ends the gate, or by the metrics that miss a limit."""
    return Counter(stage for verdict in faults.values() for stage in verdict["seen_by"])


if __name__ == "__main__":
    sys.exit(main())
