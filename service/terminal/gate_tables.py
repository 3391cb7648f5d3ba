"""Every metric of a gate, with its limit, by domain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.markup import escape
from rich.table import Table

from engine.gates.mix_gate import DomainReport, GateReport, StageMetric
from engine.gates.policy import STAGES
from service.terminal.console import console

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A value in a domain; one that gave way to the domain's noise floor tells its own limit."""

    text: str
    kept: bool = True


@dataclass(frozen=True)
class Row:
    """`name` is the metric behind its stage, `cells` are in the order of the report's domains."""

    name: str
    limit: str
    cells: tuple[Cell, ...]


def rows(report: GateReport) -> list[Row]:
    """Stage by stage; a metric that a domain does not have is an empty cell."""
    names = dict.fromkeys(
        (own.stage, own.metric) for domain in report.domains for own in domain.metrics
    )
    ordered = sorted(names, key=lambda name: STAGES.index(name[0]))
    return [
        _row(f"{stage}.{metric}", [_find(domain, stage, metric) for domain in report.domains])
        for stage, metric in ordered
    ]


def print_metrics(report: GateReport) -> None:
    """A table for the command line; a line between stages."""
    table = Table(title="Limits", title_justify="left", title_style="bold")
    table.add_column("metric")
    for title in ("limit", *(domain.domain for domain in report.domains)):
        table.add_column(escape(title), justify="right")
    for _, group in groupby(rows(report), key=lambda row: row.name.partition(".")[0]):
        for row in group:
            table.add_row(row.name, row.limit, *map(_styled, row.cells))
        table.add_section()
    console.print(table)


def _row(name: str, found: Sequence[StageMetric | None]) -> Row:
    known = [own for own in found if own is not None]
    # The noise floor is each domain's own, and with it the limit that gave way to it.
    thresholds = {own.threshold for own in known}
    shared = len(thresholds) == 1
    [first, *_] = known
    limit = _limit(first) if shared else f"{first.limit} …"
    return Row(name, limit, tuple(_cell(own, tell=not shared) for own in found))


def _cell(metric: StageMetric | None, *, tell: bool) -> Cell:
    if metric is None:
        return Cell(NOTHING)
    told = f" ({_limit(metric)})" if tell else ""
    return Cell(f"{metric.value:.4g}{told}", metric.kept)


def _limit(metric: StageMetric) -> str:
    return NOTHING if metric.threshold is None else f"{metric.limit} {metric.threshold:.4g}"


def _find(domain: DomainReport, stage: str, metric: str) -> StageMetric | None:
    found: Iterator[StageMetric] = (
        own for own in domain.metrics if (own.stage, own.metric) == (stage, metric)
    )
    return next(found, None)


def _styled(cell: Cell) -> str:
    return cell.text if cell.kept else f"[red]{cell.text}[/red]"
