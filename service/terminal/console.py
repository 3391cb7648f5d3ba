"""Prints greetings, tables and progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from engine.gates.mix_gate import GateReport
from service.client import local
from service.client.transfers import Transfer
from service.reports.mix_comparison import MixComparison
from service.schemas.mixes import EventBody

# A file has no width; use one in which the widest table is not folded.
FILE_WIDTH = 160

console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
# For progress and stages. They go to stderr, so that a redirected stdout has only results.
notes = Console(stderr=True, width=None if sys.stderr.isatty() else FILE_WIDTH)


def greet(address: str) -> None:
    """Print the address of the pages, and a link that signs in once."""
    notes.print(f"nexusmix serves at {address}", highlight=False)
    with local.key_client() as client:
        link = client.create_sign_in_link()
    minutes = f"{(link.expires_at - datetime.now(UTC)).total_seconds() / 60:.0f}"
    notes.print(
        f"sign in with {address}{link.path} (once, within {minutes} minutes;"
        " `nexusmix sign-in` prints another)",
        highlight=False,
        soft_wrap=True,
    )
    notes.print("Ctrl-C stops it", highlight=False)


def transfer(progress: Transfer) -> str:
    """Format the progress of an upload: 12 of 34 MB sent."""
    return f"{progress.num_sent / 1e6:.0f} of {progress.num_bytes / 1e6:.0f} MB sent"


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table."""
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def moment(time: datetime) -> str:
    """Format a time in the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def print_comparison(comparison: MixComparison) -> None:
    """Print perplexities: a row for each domain, a column for each model, and two rows of means."""
    table = Table(title="Held-out perplexity", title_justify="left", title_style="bold")
    table.add_column("domain")
    for column in comparison.columns:
        table.add_column(column.title, justify="right")
    if comparison.base is not None:
        table.add_column("against the version before", justify="right")
    for row, domain in enumerate(comparison.domains):
        best = comparison.best(row)
        values = [column.values[row] for column in comparison.columns]
        cells = [_marked(f"{v:.2f}", bold=v == best) for v in values]
        if comparison.base is not None:
            change = comparison.change(row)
            cells.append("new" if change is None else f"{change:+.1%}")
        table.add_row(domain, *cells)
    table.add_section()
    means = (f"{column.mean_log:.3f}" for column in comparison.columns)
    table.add_row("mean log-perplexity", *means)
    shares = (f"{comparison.share_of_gain(column):.0%}" for column in comparison.columns)
    table.add_row("share of the oracle's gain", *shares)
    console.print(table)


def print_gate(report: GateReport) -> None:
    """Print one line for each domain; in brackets the noise floor, then every missed limit."""
    verdict = "[green]passed[/green]" if report.passed else "[red]failed[/red]"
    table = Table(
        title=f"Gate: {verdict} (in brackets: the reference against itself)",
        title_justify="left",
        title_style="bold",
    )
    for title in ("domain", "served = reference", "FDT 75", "SDT", "DPPL"):
        table.add_column(title, justify="left" if title == "domain" else "right")
    for domain in report.domains:
        served, noise = domain.served, domain.noise_floor
        table.add_row(
            domain.domain,
            f"{served.equal_share:.1%} ({noise.equal_share:.1%})",
            f"{served.fdt.p75:.1f} ({noise.fdt.p75:.1f})",
            f"{served.sdt.mean:.2f} ({noise.sdt.mean:.2f})",
            f"{served.perplexity:.3f} ({noise.perplexity:.3f})",
        )
    console.print(table)
    for failure in report.failures:
        # A failure quotes texts of models, which can look like markup.
        console.print(f"  {escape(str(failure))}", highlight=False)


@contextmanager
def watching(name: str) -> Iterator[Callable[[EventBody], None]]:
    """Show a progress bar; the function that it yields takes the events of a mix."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(f"{name}: queued", total=None, detail="")

        def show(event: EventBody) -> None:
            if event.type == "metrics":
                detail = f"loss {event.data['loss']:.3f}"
                step, num_steps = event.data["step"], event.data["num_steps"]
                progress.update(task, completed=step, total=num_steps, detail=detail)
            else:
                progress.update(task, description=f"{name}: {event.message}", total=None, detail="")

        yield show


@contextmanager
def copying(name: str, *, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; the function that it yields takes the number of new bytes."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(name, total=num_bytes)
        yield lambda num_new: progress.advance(task, num_new)


def _marked(text: str, *, bold: bool) -> str:
    return f"[bold green]{text}[/bold green]" if bold else text
