"""Tables of the page about speed: finetune, assembly, engines, gates and the gateway."""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.harness import markdown

PROGRAMS = ("nexusmix", "transformers", "transformers, our allocator")


def tables() -> dict[str, str]:
    names = ("assembly", "serving", "start", "preview", "mix-gate", "registration", "gateway")
    finetunes = dict.fromkeys(("finetune", "finetune-float32"), "./nexusmix bench finetune")
    commands = {name: f"./nexusmix bench {name}" for name in names}
    return {
        "sources": markdown.sources(finetunes | commands),
        "finetune": finetune(markdown.result("finetune")),
        "finetune-float32": finetune_float32(markdown.result("finetune-float32")),
        "assembly": assembly(markdown.result("assembly")),
        "export": export(markdown.result("assembly")),
        "start": start(markdown.result("start")),
        "mix-gate": mix_gate(markdown.result("mix-gate")),
        "gateway": gateway(markdown.result("gateway")),
    }


def finetune(result: Mapping[str, Any]) -> str:
    rows = []
    for trained, part in result["trained"].items():
        speeds = [part["tokens_per_second"][name]["median"] for name in PROGRAMS]
        held = part["mb_held_for_backward"]
        rows.append(
            [
                trained,
                *(f"{speed:.1f}" for speed in speeds),
                f"{part['ratio']['median']:.3f}",
                f"{part['ratio_with_our_allocator']['median']:.3f}",
                f"{100 * part['share_of_products']['nexusmix']:.0f}",
                *(f"{held[name]:.0f}" for name in ("nexusmix", "transformers")),
            ]
        )
    head = [
        "trained",
        "nexusmix, tokens/s",
        "transformers, tokens/s",
        "transformers with our allocator, tokens/s",
        "ratio, median",
        "ratio with our allocator, median",
        "matrix products of our time, %",
        "held for the backward pass, MB",
        "transformers holds, MB",
    ]
    return markdown.table(head, rows)


def finetune_float32(result: Mapping[str, Any]) -> str:
    rows = []
    for trained, part in result["trained"].items():
        speeds = [
            part["tokens_per_second"][name]["median"] for name in ("nexusmix", "transformers")
        ]
        ratio = part["ratio"]["median"]
        rows.append([trained, *(f"{speed:.1f}" for speed in speeds), f"{ratio:.3f}"])
    head = ["trained", "nexusmix, tokens/s", "transformers, tokens/s", "ratio, median"]
    return markdown.table(head, rows)


def assembly(result: Mapping[str, Any]) -> str:
    rows = []
    for size, figures_of_size in result["sizes"].items():
        for program, figures in figures_of_size["assembly"].items():
            rows.append(
                [
                    size,
                    program,
                    f"{figures['seconds']['median']:.1f}",
                    f"{figures['anonymous_mb']['median']:,.0f}",
                    f"{figures['private_mb']['median']:,.0f}",
                    _megabytes(figures["written_mb"]["median"]),
                ]
            )
    head = ["each model", "program", "seconds", "anonymous memory, MB", "private memory, MB"]
    return markdown.table([*head, "written, MB"], rows)


def export(result: Mapping[str, Any]) -> str:
    rows = []
    for size, figures_of_size in result["sizes"].items():
        speeds = figures_of_size["export"]
        rows.append(
            [
                size,
                f"{speeds['mb']:,}",
                f"{speeds['export_mb_per_second']['median']:,.0f}",
                f"{speeds['plain_mb_per_second']['median']:,.0f}",
                f"{speeds['share']:.2f}",
            ]
        )
    head = ["each model", "exported, MB", "export, MB/s", "plain writing, MB/s", "ratio"]
    return markdown.table(head, rows)


def _megabytes(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def start(result: Mapping[str, Any]) -> str:
    rows = []
    for name, kinds in result["mixes"].items():
        for kind, figures in kinds.items():
            medians = {measure: figures[measure]["median"] for measure in figures}
            rows.append(
                [
                    name,
                    kind,
                    f"{medians['seconds_ready']:.1f}",
                    f"{medians['seconds']:.1f}",
                    f"{medians['cpu_seconds']:.1f}",
                    f"{medians['megabytes']:,.0f}",
                ]
            )
    head = [
        "mix",
        "engine",
        "ready after, s",
        "first token after, s",
        "CPU time, s",
        "memory with the process that is forked, MB",
    ]
    return markdown.table(head, rows)


def mix_gate(result: Mapping[str, Any]) -> str:
    rows = [[name, f"{seconds:.0f}"] for name, seconds in result["seconds"].items()]
    return markdown.table(["what is known beforehand", "seconds"], rows)


def gateway(result: Mapping[str, Any]) -> str:
    rows = []
    for name, by_connections in result["loads"].items():
        for connections, figures in by_connections.items():
            per_second, *latencies = (
                figures[field]["median"] for field in ("per_second", "p50", "p99")
            )
            times = [f"{milliseconds:.1f}" for milliseconds in latencies]
            rows.append([name, connections, f"{per_second:,.0f}", *times])
    head = ["server", "connections", "requests a second", "p50, ms", "p99, ms"]
    return markdown.table(head, rows)
