"""`./nexusmix bench faults`: see the package."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from assembler.evaluation.runner_errors import as_ours
from assembler.network import network_runner
from assembler.network.model import Network
from engine.vllm_build import vllm_package
from engine.vllm_plugin.model_folder import materialize
from registry.blobs.blobs import LocalBlobs
from registry.errors import Unavailable
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.faults import planted
from tests.benchmarks.faults.judging import (
    MAX_RATIO_TO_REFERENCE,
    MAX_RATIO_TO_SEED,
    NAME,
    Batched,
    Gate,
    Verdict,
    folder_refusals,
    words,
)
from tests.benchmarks.faults.planted import Plot
from tests.benchmarks.faults.staging import own_home, serving
from tests.benchmarks.harness import demo_mix, reports
from tests.benchmarks.harness.cached_results import once
from tests.engine.forwarding import forwarded

PACKAGES = ("nexusmix", "torch", vllm_package())
MIN_FAULTS = 12
# Ways to read an undamaged mix again: threads, prefixes in a batch, and reverse order.
VARIATIONS = tuple(
    (threads, size, backwards)
    for size in (1, 2, 3, 8)
    for backwards in (False, True)
    for threads in (1, 2)
)
QUICK_SERVED = ("one NaN, served",)

# Place and verdict of each fault, by name.
Verdicts = dict[str, dict[str, Any]]
Try = tuple[str, str, Callable[[], Verdict]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "planted faults, and which check or metric catches each; can be interrupted"
    )
    parser.add_argument("--prompts", type=int, default=8, help="of each domain")
    parser.add_argument("--completion-tokens", type=int, default=32)
    parser.add_argument("--windows", type=int, default=3, help="of each domain, for perplexity")
    parser.add_argument("--rebuilds", type=int, default=16, help="read by the reference network")
    parser.add_argument("--served-rebuilds", type=int, default=4)
    chosen = reports.chosen(parser, argv)
    if chosen.quick:
        chosen.rebuilds, chosen.served_rebuilds = 3, 0
    torch.set_num_threads(1)
    reports.say("making the mix, and reading it undamaged")
    gate = Gate(
        demo_mix.of_random_llamas() if chosen.quick else demo_mix.smollm2_135m(),
        prompts=chosen.prompts,
        tokens=chosen.completion_tokens,
        windows=chosen.windows,
    )
    verdicts: Verdicts = {}
    for name, where, judge in _faults(gate, QUICK_SERVED if chosen.quick else planted.SERVERS):
        verdict = _kept(gate, [name, where], judge)
        is_served = name.endswith(planted.SERVED)
        beyond = gate.beyond_floor(verdict["figures"], is_served=is_served)
        verdicts[name] = {"where": where} | verdict | {"beyond_floor": beyond}
    rebuilds = [
        {"served": number >= chosen.rebuilds} | _rebuilt(gate, number, chosen.rebuilds)
        for number in range(chosen.rebuilds + chosen.served_rebuilds)
    ]
    figures = {
        "model": gate.demo.name,
        "domains": list(gate.demo.documents),
        "policy": gate.policy.model_dump(mode="json"),
        "perplexity": {
            "tokens_per_domain": sum(len(x.tokens) for x in next(iter(gate.windows.values()))),
            "max_ratio_to_seed": MAX_RATIO_TO_SEED,
            "max_ratio_to_reference": MAX_RATIO_TO_REFERENCE,
        },
        "faults": verdicts,
        "caught_by": dict(_counts(verdicts)),
        "caught_beyond_floor": sum(bool(verdict["beyond_floor"]) for verdict in verdicts.values()),
        "rebuilds": rebuilds,
    }
    missed = [name for name, verdict in verdicts.items() if not _caught(verdict, "failed")]
    unseen = [name for name in missed if not _caught(verdicts[name], "beyond_floor")]
    alarms = [
        verdict for verdict in rebuilds if _caught(verdict, "failed") or verdict["beyond_floor"]
    ]
    bars = [
        Bar("planted faults", len(verdicts), ">=", MIN_FAULTS),
        Bar("faults that no check and no default limit caught", len(missed), "<=", 0),
        Bar("faults that were not beyond the noise floor either", len(unseen), "<=", 0),
        Bar(f"false alarms over {len(rebuilds)} undamaged rebuilds", len(alarms), "<=", 0),
    ]
    return reports.write(chosen.output, figures=figures, bars=bars, packages=PACKAGES)


def _faults(gate: Gate, in_servers: Iterable[str]) -> Iterator[Try]:
    for checkpoint in planted.CHECKPOINTS:
        yield checkpoint.name, checkpoint.where, partial(_of_checkpoint, gate, checkpoint)
    for store in planted.STORES:
        yield store.name, store.where, partial(_of_store, gate, store)
    gate.add_served_noise()
    for folder in planted.FOLDERS:
        yield folder.name, folder.where, partial(_of_folder, gate, folder)
    for name in in_servers:
        yield name, planted.SERVERS[name], partial(_of_server, gate, name)


def _of_checkpoint(gate: Gate, fault: planted.Checkpoint) -> Verdict:
    with own_home(gate.demo) as store:
        return gate.stored(fault.plant(Plot(gate.demo, store)), store)


def _of_store(gate: Gate, fault: planted.Store) -> Verdict:
    with own_home(gate.demo) as store:
        digest = fault.plant(Plot(gate.demo, store))
        return gate.stored(gate.demo.mix, store, damaged=digest)


def _of_folder(gate: Gate, fault: planted.Folder) -> Verdict:
    mix = gate.demo.mix
    with own_home(gate.demo) as store:
        folder = materialize(mix, store, root=settings().cache_path / "serving")
        fault.plant(Plot(gate.demo, store), folder)
        return _served(gate, store, folder_refusals(folder, mix), folder=folder)


def _of_server(gate: Gate, name: str) -> Verdict:
    with own_home(gate.demo) as store:
        return _served(gate, store, {}, fault=name)


def _served(gate: Gate, store: LocalBlobs, refusals: Mapping[str, str], **damage: Any) -> Verdict:
    """Judge a damaged server, which may fail to start or to answer."""
    try:
        with (
            as_ours(),
            serving(gate.demo.mix, store, **damage) as running,
            forwarded(running.address) as url,
        ):
            return gate.served(url, running.model, refusals)
    except Unavailable as error:
        refused = {**refusals, "answer": words(error)}
        return Verdict(refusals=refused, failed=(), figures={})


def _rebuilt(gate: Gate, number: int, num_read: int) -> dict[str, Any]:
    """Assemble the mix again, and judge it with other batches, threads and order of texts."""
    threads, size, backwards = VARIATIONS[number % len(VARIATIONS)]
    is_served = number >= num_read
    mix = gate.demo.assemble(gate.demo.blobs)

    def judge() -> Verdict:
        with own_home(gate.demo) as store, threadpool_limits(threads):
            if not is_served:
                network = Network.from_manifest(mix, store, dtype=torch.float32)
                runner = Batched(network_runner.runner(network), size, backwards)
                return gate.judge(runner, gate.stored_refusals(mix, store), is_served=False)
            with serving(mix, store, threads=threads) as running:
                runner = Batched(running.runner(), size, backwards)
                with forwarded(running.address) as url:
                    refusals = gate.served_refusals(url, running.model)
                return gate.judge(runner, refusals, is_served=True)

    way = {"threads": threads, "batch": size, "backwards": backwards}
    verdict = _kept(gate, ["rebuild", number, is_served, mix.digest, way], judge)
    beyond = gate.beyond_floor(verdict["figures"], is_served=is_served)
    same = mix.digest == gate.demo.mix.digest
    return way | {"same_bytes": same} | verdict | {"beyond_floor": beyond}


def _kept(gate: Gate, name: list[Any], judge: Callable[[], Verdict]) -> dict[str, Any]:
    verdict: dict[str, Any] = once(NAME, [name, gate.key], lambda: judge().to_json())
    reports.say(f"{name}: {verdict}")
    return verdict


def _caught(verdict: Mapping[str, Any], by: str) -> bool:
    return bool(verdict["refused"] or verdict[by])


def _counts(verdicts: Mapping[str, Mapping[str, Any]]) -> Counter[str]:
    """Count the faults that each check and metric catches."""
    return Counter(
        name for verdict in verdicts.values() for name in (*verdict["refused"], *verdict["failed"])
    )


if __name__ == "__main__":
    sys.exit(main())
