"""Prints what a demo measured, and the promises that it broke."""

from rich.text import Text

from service.demo.reports import Report
from service.demo.sampling import tokens_per_second
from service.terminal.console import console, print_comparison, print_gate
from service.terminal.printable import printable


def print_report(report: Report) -> None:
    """Print perplexities, the gate, one completion for each domain, speed, and broken promises."""
    print_comparison(report.comparison)
    print_gate(report.gate)
    for completion in report.completions:
        console.rule(Text(completion.domain, style="bold"), align="left")
        console.print(
            Text.assemble((printable(completion.prompt), "dim"), printable(completion.text))
        )
    console.rule()
    speed = tokens_per_second(report.completions)
    console.print(f"{speed:.1f} tokens/s through the gateway; pages at {report.address}")
    for bar in report.broken:
        console.print(Text.assemble(("not kept", "red"), f"  {bar}"))
