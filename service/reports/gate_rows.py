"""The metrics of a gate report as plain rows, with their limits, one column a text.

The texts are those of each domain, then general text where the gate has read any.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.gates.general_gate import GENERAL_TEXT
from engine.gates.mix_gate import GateReport
from engine.gates.perplexities import StageMetric
from engine.gates.policy import STAGES

EMPTY = "–"


@dataclass(frozen=True)
class Cell:
    """The value of a metric on one text; `kept` is False when it misses its limit."""

    text: str
    kept: bool = True


@dataclass(frozen=True)
class Row:
    """One metric. `name` is `STAGE.METRIC`; `cells` follow the order of `gate_columns`."""

    name: str
    limit: str
    cells: tuple[Cell, ...]


def gate_columns(report: GateReport) -> list[str]:
    """Return the titles of the columns."""
    return [title for title, _ in _texts(report)]


def gate_rows(report: GateReport) -> list[Row]:
    """Return one row a metric, stage by stage; a text without the metric has an empty cell."""
    texts = _texts(report)
    names = dict.fromkeys((m.stage, m.metric) for _, metrics in texts for m in metrics)
    ordered = sorted(names, key=lambda name: STAGES.index(name[0]))
    return [
        _row(f"{stage}.{name}", [_find(metrics, stage, name) for _, metrics in texts])
        for stage, name in ordered
    ]


def _texts(report: GateReport) -> list[tuple[str, Sequence[StageMetric]]]:
    """Return the title and the metrics of each text."""
    texts: list[tuple[str, Sequence[StageMetric]]] = [
        (domain.domain, domain.metrics) for domain in report.domains
    ]
    if report.general is not None:
        texts.append((GENERAL_TEXT, report.general.metrics))
    return texts


def _row(name: str, metrics: Sequence[StageMetric | None]) -> Row:
    present = [metric for metric in metrics if metric is not None]
    # A limit is relaxed to the noise floor of its domain, so domains can have different limits.
    # Then each cell shows its own.
    is_shared = len({metric.threshold for metric in present}) == 1
    first = present[0]
    limit = _limit(first) if is_shared else f"{first.limit} …"
    return Row(name, limit, tuple(_cell(metric, show_limit=not is_shared) for metric in metrics))


def _cell(metric: StageMetric | None, *, show_limit: bool) -> Cell:
    if metric is None:
        return Cell(EMPTY)
    limit = f" ({_limit(metric)})" if show_limit else ""
    return Cell(f"{metric.value:.4g}{limit}", metric.kept)


def _limit(metric: StageMetric) -> str:
    return EMPTY if metric.threshold is None else f"{metric.limit} {metric.threshold:.4g}"


def _find(metrics: Sequence[StageMetric], stage: str, name: str) -> StageMetric | None:
    return next((m for m in metrics if (m.stage, m.metric) == (stage, name)), None)
