"""Write the results of benchmarks of gates and compression as tables in Markdown."""

from collections.abc import Callable, Iterator

from tests.benchmarks.divergence_page import int8_tables
from tests.benchmarks.divergence_page.cells import Figures, fdt, fdt_75, perplexity
from tests.benchmarks.harness import markdown

METRICS = {
    "fdt": "FDT",
    "sdt": "SDT",
    "dppl": "DPPL",
    "perplexity": "perplexity of held-out text",
}


def of(results: Figures) -> dict[str, str]:
    """Return every table whose results exist, by name."""
    makers: dict[str, tuple[str, Callable[[Figures], str]]] = {
        "cost": ("divergence", _cost),
        "gate": ("gate", _gate),
        "perturbation": ("perturbation", _perturbation),
        "int8": ("compression", lambda result: int8_tables.curves(result, fdt)),
        "int8-fdt75": ("compression", lambda result: int8_tables.curves(result, fdt_75)),
        "int8-ahead": ("compression", int8_tables.ahead),
        "int8-perplexity": ("compression", lambda result: int8_tables.curves(result, perplexity)),
        "int8-smoothing": ("compression", int8_tables.smoothing),
        "int8-cost": ("compression", int8_tables.cost),
        "beams": ("compression", int8_tables.beams),
        "sparsity": ("sparsity", _sparsity),
        "removal": ("sparsity", _removal),
        "serving": ("serving", _serving),
        "faults": ("faults", _faults),
    }
    return {
        name: make(results[source]) for name, (source, make) in makers.items() if source in results
    }


def _cost(result: Figures) -> str:
    """Return the milliseconds of a compared token."""
    rows = []
    for size, batch in result["batches"].items():
        times = batch["milliseconds_per_compared_token"]
        names = ("read", "generated with both", "generated with both, transformers")
        cells = [f"{times[n]['median']:.1f}" if n in times else "" for n in names]
        rows.append([size, *cells, f"{batch['ratio']['median']:.1f}"])
    return markdown.table(
        [
            "prefixes in a batch",
            "candidate reads, ms",
            "both generate, ms",
            "both generate, transformers, ms",
            "ratio, median",
        ],
        rows,
    )


def _gate(result: Figures) -> str:
    rows = []
    for name, comparison in result["comparisons"].items():
        domains = comparison["domains"].values()
        rows.append(
            [
                name,
                f"{comparison['seconds']:.0f}",
                f"{comparison['cpu_seconds']:.0f}",
                f"{comparison['private_mb']:,}",
                f"{min(d['candidate']['fdt']['p75'] for d in domains):.1f}",
                f"{100 * min(d['candidate']['equal_share'] for d in domains):.1f}",
                f"{min(d['noise_floor']['fdt']['p75'] for d in domains):.1f}",
                f"{100 * min(d['noise_floor']['equal_share'] for d in domains):.1f}",
            ]
        )
    return markdown.table(
        [
            "comparison",
            "seconds",
            "CPU seconds",
            "MB",
            "FDT 75, least of the domains",
            "equal tokens, %",
            "floor: FDT 75",
            "floor: equal, %",
        ],
        rows,
    )


def _perturbation(result: Figures) -> str:
    rows = []
    for name, subject in result["subjects"].items():
        for metric, title in METRICS.items():
            apart = subject["told_apart"][metric]
            share, low, high = (100 * x for x in apart["share_right"])
            rows.append(
                [
                    name,
                    title,
                    f"{apart['right']}, {apart['equal']}, {apart['wrong']}",
                    f"{share:.0f} [{low:.0f}, {high:.0f}]",
                    f"{apart['tells']}, {apart['misleads']}",
                ]
            )
    head = ["model", "metric", "trials right, equal, wrong", "signs right, %", "tells, misleads"]
    return markdown.table(head, rows)


def _sparsity(result: Figures) -> str:
    rows = []
    for name, subject in result["subjects"].items():
        none = subject["none"]
        megabytes = f"{none['num_bytes'] / 1e6:.0f}"
        rows.append([name, "0", megabytes, fdt(none), "", perplexity(none), "", ""])
        for suffix in ("", ", retrained"):
            if f"fdt{suffix}" in subject["curves"]:
                rows += _zeros(subject, suffix)
    return markdown.table(
        [
            "model",
            "zeros, %",
            "MB stored",
            "mean FDT, equal shares",
            "chosen",
            "perplexity, equal shares",
            "chosen",
            "attention matrices zero to 90 %, all zero, chosen",
        ],
        rows,
    )


def _zeros(subject: Figures, suffix: str) -> Iterator[list[str]]:
    """Return the rows of equal and of chosen shares, point by point."""
    curves = subject["curves"]
    for equal, chosen in zip(curves[f"uniform{suffix}"], curves[f"fdt{suffix}"], strict=True):
        yield [
            suffix.removeprefix(", "),
            f"{100 * chosen['share']:.0f}",
            f"{chosen['num_bytes'] / 1e6:.0f}",
            fdt(equal),
            fdt(chosen),
            f"{equal['perplexity']:,.2f}",
            f"{chosen['perplexity']:,.2f}",
            f"{chosen['attention_from_90_percent']}, {chosen['attention_vanished']}"
            f" of {subject['num_attention_components']}",
        ]


def _removal(result: Figures) -> str:
    rows = [
        [
            title,
            f"{times['layers_without_attention']}, {times['layers_without_ffn']}",
            f"{times['num_parameters'] / times['num_parameters_before']:.3f}",
            f"{times['ratio']['median']:.3f}",
        ]
        for title, times in result["removal"].items()
    ]
    return markdown.table(
        [
            "zeros",
            "layers without attention, without FFN",
            "parameters left",
            "CPU time of a pass over that before",
        ],
        rows,
    )


def _serving(result: Figures) -> str:
    rows = []
    for name, pair in result["pairs"].items():
        size = pair["num_bytes"] / pair["num_bytes_before"]
        for kind, times in pair["kinds"].items():
            rows.append(
                [
                    name,
                    kind,
                    f"{times['cpu_seconds_before']['median']:.2f}",
                    f"{times['cpu_seconds']['median']:.2f}",
                    f"{times['ratio']['median']:.2f}",
                    f"{times['ratio_of_seconds']['median']:.2f}",
                    f"{size:.2f}",
                ]
            )
    return markdown.table(
        [
            "changed",
            "requests",
            "CPU seconds before",
            "after",
            "ratio, median",
            "of seconds, median",
            "bytes over those before",
        ],
        rows,
    )


def _faults(result: Figures) -> str:
    rows = [
        [name, fault["where"], ", ".join(fault["seen_by"]) or "**no stage**"]
        for name, fault in result["faults"].items()
    ]
    return markdown.table(["fault", "where", "seen by"], rows)
