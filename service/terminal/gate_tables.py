"""Prints every metric of a gate report, with its limit, one column a text."""

from itertools import groupby

from rich.table import Table
from rich.text import Text

from engine.gates.mix_gate import GateReport
from service.reports.gate_rows import Cell, gate_columns, gate_rows
from service.terminal.console import console


def print_metrics(report: GateReport) -> None:
    """Print one table, with a line between stages; values that miss their limit are red."""
    table = Table(title="Limits", title_justify="left", title_style="bold")
    table.add_column("metric")
    for title in ("limit", *gate_columns(report)):
        table.add_column(title, justify="right")
    for _, rows in groupby(gate_rows(report), key=lambda row: row.name.partition(".")[0]):
        for row in rows:
            table.add_row(row.name, row.limit, *map(_styled, row.cells))
        table.add_section()
    console.print(table)


def _styled(cell: Cell) -> Text:
    return Text(cell.text, style="" if cell.kept else "red")
