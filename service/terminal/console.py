"""Prints greetings, tables and progress bars on the terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from engine.gates.general_gate import GENERAL_TEXT
from engine.gates.mix_gate import GateReport
from service.client import local
from service.client.transfers import Transfer
from service.reports.mix_comparison import MixComparison
from service.schemas.mixes import EventBody
from service.terminal.printable import printable

# A file has no width; use one in which the widest table is not folded.
FILE_WIDTH = 160


def open_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """Return a console that prints every text as it is.

    Names, descriptions, errors and texts of models can look like markup or emoji codes; to rich a
    wrong one is an error. What is styled is a `Text`.
    """
    is_terminal = file is None and (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        file=file,
        stderr=stderr,
        width=None if is_terminal else FILE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


console = open_console()
# For progress and stages. They go to stderr, so that a redirected stdout has only results.
notes = open_console(stderr=True)


def greet(address: str) -> None:
    """Print the address of the pages, and a link that signs in once."""
    notes.print(f"nexusmix serves at {address}")
    with local.key_client() as client:
        link = client.create_sign_in_link()
    minutes = f"{(link.expires_at - datetime.now(UTC)).total_seconds() / 60:.0f}"
    notes.print(
        f"sign in with {address}{link.path} (once, within {minutes} minutes;"
        " `nexusmix sign-in` prints another)",
        soft_wrap=True,
    )
    notes.print("Ctrl-C stops it")


def transfer(progress: Transfer) -> str:
    """Format the progress of an upload: 12 of 34 MB sent."""
    return f"{progress.num_sent / 1e6:.0f} of {progress.num_bytes / 1e6:.0f} MB sent"


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table."""
    table = Table(*titles, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)


@contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """Show what a command does now; the function that it yields takes what it does next."""
    with notes.status(Text(text)) as status:
        yield lambda text: status.update(Text(printable(text)))


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
        cells = [Text(f"{v:.2f}", style="bold green" if v == best else "") for v in values]
        if comparison.base is not None:
            change = comparison.change(row)
            cells.append(Text("new" if change is None else f"{change:+.1%}"))
        table.add_row(domain, *cells)
    if comparison.has_general:
        on_general = [f"{column.general:.2f}" for column in comparison.columns]
        if comparison.general_change is not None:
            on_general.append(f"{comparison.general_change:+.1%}")
        table.add_row(GENERAL_TEXT, *on_general)
    table.add_section()
    means = (f"{column.mean_log:.3f}" for column in comparison.columns)
    table.add_row("mean log-perplexity", *means)
    shares = (f"{comparison.share_of_gain(column):.0%}" for column in comparison.columns)
    table.add_row("share of the oracle's gain", *shares)
    console.print(table)


def print_gate(report: GateReport) -> None:
    """Print one line for each domain; in brackets the noise floor, then every missed limit."""
    verdict = ("passed", "green") if report.passed else ("failed", "red")
    table = Table(
        title=Text.assemble("Gate: ", verdict, " (in brackets: the reference against itself)"),
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
    if report.unjudged:
        console.print(printable(f"  {report.about_unjudged}"))
    if report.construction is not None:
        console.print(printable(f"  {report.construction.unseen}"))
    for failure in report.failures:
        console.print(printable(f"  {failure}"))


@contextmanager
def watching(name: str) -> Iterator[Callable[[EventBody], None]]:
    """Show a progress bar; the function that it yields takes the events of a mix.

    That its preview answers is printed, and stays."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
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
                if event.data.get("preview") is not None:
                    progress.console.print(printable(f"{name}: {event.message}"))
                description = printable(f"{name}: {event.message}")
                progress.update(task, description=description, total=None, detail="")

        yield show


@contextmanager
def copying(name: str, *, num_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; the function that it yields takes the number of new bytes."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(name, total=num_bytes)
        yield lambda num_new: progress.advance(task, num_new)
