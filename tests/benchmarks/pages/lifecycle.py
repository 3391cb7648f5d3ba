"""Tables of the page about the life of a mix."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.harness import markdown

DOMAINS = ("german-manuals", "metamath", "dictionary", "go")
# If a mix is worse than the seed, its share of the gain is not shown.
WORSE = "below 0"


def tables() -> dict[str, str]:
    result = markdown.result("lifecycle")
    return {
        "sources": markdown.sources({"lifecycle": "./nexusmix bench lifecycle"}),
        "versions": versions(result["versions"]),
        "changes": changes(result["versions"]),
        "promises": promises(result["bars"]),
    }


def versions(by_title: Mapping[str, Any]) -> str:
    """Return held-out perplexity by version; brackets mark a domain without an expert."""
    every = [version["domains"] for version in by_title.values()]
    # The domain `go` gets its expert in the second version; before it has this perplexity.
    go_before = by_title["extended"]["domains"]["go"]["version_before"]
    known = {domain: version[domain] for version in every for domain in version}
    rows = [["seed", "", "", *(f"{known[domain]['seed']:.2f}" for domain in DOMAINS), "0", ""]]
    for title, version in by_title.items():
        cells = [_cell(version["domains"].get(domain)) for domain in DOMAINS]
        if title == "mixed":
            cells[DOMAINS.index("go")] = f"({go_before:.2f})"
        tokens = version["finetune"]["tokens"]
        equal = min(domain["served_equals_reference"] for domain in version["domains"].values())
        rows.append(
            [
                f"`{version['mix']}`, {title}",
                str(len(version["experts"])),
                f"{tokens:,}",
                *cells,
                _share(version["domains"]),
                f"{100 * equal:.1f}",
            ]
        )
    right = [f"{known[domain]['right_expert']:.2f}" for domain in DOMAINS]
    rows.append(["right expert, by label", "", "", *right, "100", ""])
    head = ["version", "experts", "tokens", *DOMAINS]
    return markdown.table([*head, "share of the gain, %", "served equals reference, %"], rows)


def changes(by_title: Mapping[str, Any]) -> str:
    """Return the change of perplexity from the version before, in percent."""
    rows = []
    for title, version in by_title.items():
        if version["base"] is None:
            continue
        cells = []
        for domain in DOMAINS:
            figures = version["domains"].get(domain)
            before = figures and figures["version_before"]
            cells.append(f"{100 * (figures['mix'] / before - 1):+.1f}" if before else "")
        new = version["domains"]["go"]["share_of_gain"]
        rows.append(
            [f"`{version['mix']}`, {title}", f"`{version['base']}`", *cells, f"{100 * new:.0f}"]
        )
    head = ["version", "made from", *(f"{domain}, %" for domain in DOMAINS)]
    return markdown.table([*head, "share of the Go expert's gain, %"], rows)


def promises(bars: list[str]) -> str:
    """Return the table of promises and measurements."""
    rows = []
    for bar in bars:
        claim, _, rest = bar.rpartition(": ")
        value, _, limit = rest.partition(", promised ")
        relation, _, number = limit.partition(" ")
        kept = float(value) >= float(number) if relation == ">=" else float(value) <= float(number)
        rows.append([claim, value, f"{relation} {number}", "yes" if kept else "**no**"])
    return markdown.table(["promise", "measured", "limit", "kept"], rows)


def _cell(figures: Mapping[str, float] | None) -> str:
    return f"{figures['mix']:,.2f}" if figures else ""


def _share(domains: Mapping[str, Mapping[str, float]]) -> str:
    gained, possible = (
        statistics.mean(math.log(figures["seed"] / figures[name]) for figures in domains.values())
        for name in ("mix", "right_expert")
    )
    return f"{100 * gained / possible:.0f}" if gained > 0 else WORSE
