"""Results of the benchmarks of gates and compression as tables in Markdown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.benchmarks import markdown

Figures = Mapping[str, Any]

METRICS = {
    "fdt": "FDT",
    "sdt": "SDT",
    "dppl": "DPPL",
    "perplexity": "perplexity of held-out text",
}
WAYS = {
    "fdt": "chosen by FDT",
    "dppl": "by DPPL",
    "perplexity": "by perplexity",
    "order": "in the order of the network",
}
LIMITS = {
    "equal_share": "equal share",
    "fdt_75": "FDT 75",
    "sdt": "SDT",
    "dppl_ratio": "DPPL",
    "logprob_difference": "Δ log p",
    "perplexity_to_reference": "perplexity to the undamaged",
    "perplexity_to_seed": "perplexity to the seed",
}


def of(results: Figures) -> dict[str, str]:
    """Every table that there are results for, by its name."""
    makers: dict[str, tuple[str, Callable[[Figures], str]]] = {
        "cost": ("divergence", _cost),
        "gate": ("gate", _gate),
        "perturbation": ("perturbation", _perturbation),
        "int8": ("compression", lambda found: _int8(found, _fdt)),
        "int8-ahead": ("compression", _ahead),
        "int8-perplexity": ("compression", lambda found: _int8(found, _perplexity)),
        "int8-smoothing": ("compression", _smoothing),
        "int8-cost": ("compression", _int8_cost),
        "beams": ("compression", _beams),
        "sparsity": ("sparsity", _sparsity),
        "removal": ("sparsity", _removal),
        "serving": ("serving", _serving),
        "faults": ("faults", _faults),
    }
    return {
        name: make(results[source]) for name, (source, make) in makers.items() if source in results
    }


def _cost(found: Figures) -> str:
    """Milliseconds of a compared token."""
    rows = []
    for size, own in found["batches"].items():
        times = own["milliseconds_per_compared_token"]
        names = ("read", "generated with both", "generated with both, transformers")
        cells = [f"{times[n]['median']:.1f}" if n in times else "" for n in names]
        rows.append([size, *cells, f"{own['ratio']['median']:.1f}"])
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


def _gate(found: Figures) -> str:
    rows = []
    for name, own in found["comparisons"].items():
        domains = own["domains"].values()
        rows.append(
            [
                name,
                f"{own['seconds']:.0f}",
                f"{own['cpu_seconds']:.0f}",
                f"{own['private_mb']:,}",
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


def _perturbation(found: Figures) -> str:
    rows = []
    for name, own in found["subjects"].items():
        for metric, title in METRICS.items():
            told = own["told_apart"][metric]
            share, low, high = (100 * x for x in told["share_right"])
            rows.append(
                [
                    name,
                    title,
                    f"{told['right']}, {told['equal']}, {told['wrong']}",
                    f"{share:.0f} [{low:.0f}, {high:.0f}]",
                    f"{told['tells']}, {told['misleads']}",
                ]
            )
    head = ["model", "metric", "trials right, equal, wrong", "signs right, %", "tells, misleads"]
    return markdown.table(head, rows)


def _int8(found: Figures, cell: Callable[[Figures], str]) -> str:
    rows = []
    for name, own in found["subjects"].items():
        nothing, everything = own["ends"]["none"], own["ends"]["all"]
        points = zip(*(own["curves"][way] for way in WAYS), strict=True)
        empty = [""] * (len(WAYS) - 1)
        rows.append([name, *_size([nothing]), cell(nothing), *empty])
        rows += [["", *_size(same), *map(cell, same)] for same in points]
        rows.append(["", *_size([everything]), cell(everything), *empty])
    return markdown.table(["model, for", "int8, %", "MB", *WAYS.values()], rows)


def _ahead(found: Figures) -> str:
    """By how many tokens FDT's choice stays whole for longer than another, prefix by prefix."""
    others = [way for way in WAYS if way != "fdt"]
    rows = []
    for name, own in found["subjects"].items():
        model = name
        for number, point in enumerate(own["curves"]["fdt"]):
            ahead = [own["fdt_ahead_of"][way][number] for way in others]
            cells = [f"{one['tokens']:+.1f}{_interval(one['interval'])}" for one in ahead]
            rows.append([model, f"{100 * point['int8_share']:.0f}", *cells])
            model = ""
    heads = [f"later than {WAYS[way]}" for way in others]
    return markdown.table(["model, for", "int8, %", *heads], rows)


def _size(points: Sequence[Figures]) -> list[str]:
    """Shares and megabytes of points that are about equally large."""
    shares = [round(100 * own["int8_share"]) for own in points]
    sizes = [round(own["num_bytes"] / 1e6) for own in points]
    return [_range(shares), _range(sizes)]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _fdt(point: Figures) -> str:
    return f"{point['fdt_mean']:.1f}{_interval(point['fdt_mean_interval'])}"


def _perplexity(point: Figures) -> str:
    return f"{point['perplexity']:.2f}"


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"


def _smoothing(found: Figures) -> str:
    """Everything in int8, without and with smoothing."""
    rows = []
    for name, own in found["subjects"].items():
        none, *both = (own["ends"][end] for end in ("none", "all, not smoothed", "all"))
        told = [
            [f"{one['fdt_75']:.1f}", _fdt(one), f"{100 * one['equal_share']:.1f}", _perplexity(one)]
            for one in both
        ]
        pairs = [f"{plain}, {smoothed}" for plain, smoothed in zip(*told, strict=True)]
        rows.append([name, *_size(both[:1]), *pairs, _perplexity(none)])
    return markdown.table(
        [
            "model, for",
            "int8, %",
            "MB",
            "FDT 75",
            "mean FDT",
            "equal tokens, %",
            "perplexity",
            "with nothing in int8",
        ],
        rows,
    )


def _int8_cost(found: Figures) -> str:
    rows = []
    for name, own in (found["subjects"] | {"beams": found["beams"]}).items():
        if cost := own.get("cost"):
            rows.append(
                [
                    own.get("model", name),
                    str(own["num_units"]),
                    str(cost["num_rounds"]),
                    f"{cost['cpu_seconds']:.0f}",
                    f"{cost['cpu_seconds_reading_whole']:.0f}",
                    f"{cost['ratio']:.2f}",
                    _percents(cost["shares_chosen_by_both"]),
                    _percents(cost["shares_chosen_in_other_batches"]),
                ]
            )
    return markdown.table(
        [
            "model",
            "units",
            "rounds",
            "CPU seconds",
            "reading whole",
            "ratio",
            "bytes chosen by both after each round, %",
            "by reading whole in other batches, %",
        ],
        rows,
    )


def _percents(shares: Sequence[float]) -> str:
    """Of many the first and the last, and the least."""
    if len(shares) > 4:
        return f"{100 * shares[0]:.0f} to {100 * shares[-1]:.0f}, at least {100 * min(shares):.0f}"
    return ", ".join(f"{100 * share:.0f}" for share in shares)


def _beams(found: Figures) -> str:
    """At the numbers of units that are nearest to thirds of all."""
    own = found["beams"]
    rows = []
    for number in (own["num_units"] // 3, 2 * own["num_units"] // 3):
        for width, curves in own["widths"].items():
            points = [curves[by][number - 1] for by in ("fdt", "dppl", "perplexity")]
            share = f"{number} of {own['num_units']}"
            rows.append([share, *_size(points), width, *map(_fdt, points)])
    head = ["units", "int8, %", "MB", "configurations kept", *list(WAYS.values())[:3]]
    return markdown.table(head, rows)


def _sparsity(found: Figures) -> str:
    rows = []
    for name, own in found["subjects"].items():
        none = own["none"]
        megabytes = f"{none['num_bytes'] / 1e6:.0f}"
        rows.append([name, "0", megabytes, _fdt(none), "", _perplexity(none), "", ""])
        for suffix in ("", ", retrained"):
            if f"fdt{suffix}" in own["curves"]:
                rows += _zeros(own, suffix)
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


def _zeros(own: Figures, suffix: str) -> Iterator[list[str]]:
    """Of equal and of chosen shares, point by point."""
    curves = own["curves"]
    for equal, chosen in zip(curves[f"uniform{suffix}"], curves[f"fdt{suffix}"], strict=True):
        yield [
            suffix.removeprefix(", "),
            f"{100 * chosen['share']:.0f}",
            f"{chosen['num_bytes'] / 1e6:.0f}",
            _fdt(equal),
            _fdt(chosen),
            f"{equal['perplexity']:,.2f}",
            f"{chosen['perplexity']:,.2f}",
            f"{chosen['attention_from_90_percent']}, {chosen['attention_vanished']}"
            f" of {own['num_attention_components']}",
        ]


def _removal(found: Figures) -> str:
    rows = [
        [
            title,
            f"{own['layers_without_attention']}, {own['layers_without_ffn']}",
            f"{own['num_parameters'] / own['num_parameters_before']:.3f}",
            f"{own['ratio']['median']:.3f}",
        ]
        for title, own in found["removal"].items()
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


def _serving(found: Figures) -> str:
    rows = []
    for name, own in found["pairs"].items():
        size = own["num_bytes"] / own["num_bytes_before"]
        for kind, times in own["kinds"].items():
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


def _faults(found: Figures) -> str:
    rows = [
        [
            name,
            own["where"],
            ", ".join(own["refused"]),
            ", ".join(title for limit, title in LIMITS.items() if limit in own["failed"]),
        ]
        for name, own in found["faults"].items()
    ]
    return markdown.table(["fault", "where", "refused by", "limits not kept"], rows)
