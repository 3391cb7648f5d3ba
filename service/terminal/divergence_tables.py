"""Prints a comparison of two models."""

from rich.table import Table
from rich.text import Text

from engine.divergence.aggregates import Interval, Summary
from engine.gates.comparison_gate import DivergenceReport
from engine.gates.report import Divergent
from service.terminal.console import console
from service.terminal.printable import printable

FLOOR = "noise floor"


def print_report(report: DivergenceReport) -> None:
    """Print a line for each domain and its noise floor, missed limits, and divergent places."""
    verdict = ("kept", "green") if report.passed else ("not kept", "red")
    names = f"{report.candidate.name} against {report.reference.name}: "
    table = Table(
        title=Text.assemble(names, verdict),
        title_justify="left",
        title_style="bold",
    )
    table.add_column("domain")
    for title in ("prefixes", "FDT 25, 50, 75", "FDT mean", "SDT", "DPPL", "equal", "Δ log p"):
        table.add_column(title, justify="right")
    for domain in report.domains:
        table.add_row(domain.domain, *_cells(domain.candidate))
        table.add_row(f"  {FLOOR}", *_cells(domain.noise_floor), style="dim")
    console.print(table)
    console.print(
        f"FDT of at most {report.policy.completion_tokens} tokens; in brackets 95 % of the mean, by"
        f" prefix; Δ log p: mean difference of log-probabilities, in nats; {FLOOR}: the reference"
        " against itself"
    )
    for failure in report.failures:
        console.print(Text.assemble(("not kept", "red"), printable(f"  {failure}")))
    for domain in report.domains:
        for example in domain.examples:
            _print_example(domain.domain, example)


def _cells(summary: Summary) -> tuple[str, ...]:
    fdt = summary.fdt
    return (
        str(summary.num_prefixes),
        f"{fdt.p25:.1f}, {fdt.p50:.1f}, {fdt.p75:.1f}",
        f"{fdt.mean:.1f}{_interval(fdt.interval, '.1f')}",
        f"{summary.sdt.mean:.2f}",
        f"{summary.perplexity:.3f}",
        f"{summary.equal_share:.2%}{_interval(summary.equal_share_interval, '.2%')}",
        "–" if summary.logprob_difference is None else f"{summary.logprob_difference:.1e}",
    )


def _interval(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def _print_example(domain: str, example: Divergent) -> None:
    margin = "" if example.margin is None else f", margin {example.margin:.2f}"
    console.print(
        Text.assemble(
            (f"{domain} {example.prompt}, token {example.position}{margin}:", "dim"),
            f" {example.context!r} ",
            (repr(example.text), "green"),
            " ",
            (repr(example.predicted_text), "red"),
        )
    )
