"""Write the tables about `bench compression`."""

from collections.abc import Callable, Sequence

from tests.benchmarks.divergence_page.cells import Figures, fdt, interval, perplexity
from tests.benchmarks.harness import markdown

WAYS = {
    "fdt": "chosen by FDT",
    "dppl": "by DPPL",
    "perplexity": "by perplexity",
    "order": "in the order of the network",
}


def curves(result: Figures, cell: Callable[[Figures], str]) -> str:
    rows = []
    for name, subject in result["subjects"].items():
        nothing, everything = subject["ends"]["none"], subject["ends"]["all"]
        points = zip(*(subject["curves"][way] for way in WAYS), strict=True)
        empty = [""] * (len(WAYS) - 1)
        rows.append([name, *_size([nothing]), cell(nothing), *empty])
        rows += [["", *_size(same), *map(cell, same)] for same in points]
        rows.append(["", *_size([everything]), cell(everything), *empty])
    return markdown.table(["model, for", "int8, %", "MB", *WAYS.values()], rows)


def ahead(result: Figures) -> str:
    """Return by how many tokens texts diverge later with FDT's choice than with another."""
    others = [way for way in WAYS if way != "fdt"]
    rows = []
    for name, subject in result["subjects"].items():
        model = name
        for number, point in enumerate(subject["curves"]["fdt"]):
            ahead_of = [subject["fdt_ahead_of"][way][number] for way in others]
            cells = [f"{one['tokens']:+.1f}{interval(one['interval'])}" for one in ahead_of]
            rows.append([model, f"{100 * point['int8_share']:.0f}", *cells])
            model = ""
    heads = [f"later than {WAYS[way]}" for way in others]
    return markdown.table(["model, for", "int8, %", *heads], rows)


def smoothing(result: Figures) -> str:
    """Return everything in int8, without and with smoothing, and what smoothing gains."""
    rows = []
    for name, subject in result["subjects"].items():
        none, *both = (subject["ends"][end] for end in ("none", "all, not smoothed", "all"))
        columns = [
            [f"{one['fdt_75']:.1f}", fdt(one), f"{100 * one['equal_share']:.1f}", perplexity(one)]
            for one in both
        ]
        pairs = [", ".join(pair) for pair in zip(*columns, strict=True)]
        plain, smoothed = both
        cost = plain["perplexity"] - none["perplexity"]
        gains = [
            100 * (plain["perplexity"] - smoothed["perplexity"]) / cost,
            100 * (smoothed["fdt_mean"] / plain["fdt_mean"] - 1),
        ]
        cells = [*pairs, perplexity(none), *(f"{gain:.0f}" for gain in gains)]
        rows.append([name, *_size(both[:1]), *cells])
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
            "smoothing takes back of the perplexity, %",
            "mean FDT is later by, %",
        ],
        rows,
    )


def cost(result: Figures) -> str:
    rows = []
    for name, subject in (result["subjects"] | {"beams": result["beams"]}).items():
        if cost := subject.get("cost"):
            rows.append(
                [
                    subject.get("model", name),
                    str(subject["num_units"]),
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


def beams(result: Figures) -> str:
    """Compare beam widths at about one and two thirds of all units."""
    beam_figures = result["beams"]
    rows = []
    for number in (beam_figures["num_units"] // 3, 2 * beam_figures["num_units"] // 3):
        for width, scores in beam_figures["widths"].items():
            points = [scores[by][number - 1] for by in ("fdt", "dppl", "perplexity")]
            share = f"{number} of {beam_figures['num_units']}"
            rows.append([share, *_size(points), width, *map(fdt, points)])
    head = ["units", "int8, %", "MB", "configurations kept", *list(WAYS.values())[:3]]
    return markdown.table(head, rows)


def _size(points: Sequence[Figures]) -> list[str]:
    """Format the shares and megabytes of points with about equal sizes."""
    shares = [round(100 * point["int8_share"]) for point in points]
    sizes = [round(point["num_bytes"] / 1e6) for point in points]
    return [_range(shares), _range(sizes)]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _percents(shares: Sequence[float]) -> str:
    """Format shares in percent; of many only the first, the last and the smallest."""
    if len(shares) > 4:
        return f"{100 * shares[0]:.0f} to {100 * shares[-1]:.0f}, at least {100 * min(shares):.0f}"
    return ", ".join(f"{100 * share:.0f}" for share in shares)
