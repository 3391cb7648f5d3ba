"""Writes the gate report of a mix as one HTML file that loads no other file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.divergence.aggregates import Summary
from engine.gates.mix_gate import GateReport
from engine.gates.policy import Stage
from engine.gates.report import Divergent
from service.reports.gate_rows import gate_columns, gate_rows
from service.reports.html import render
from service.reports.mix_comparison import MixComparison

# The stages in which a second model reads the reference's texts: title and explanation.
STAGES_WITH_READER: Mapping[Stage, tuple[str, str]] = {
    "served": ("Served against reference", "The engine that serves reads the texts."),
    "finetuned": ("What the finetune moved", "The mix as it was before its finetune reads them."),
    "base": (
        "Against the version before",
        "The version that the mix was made from reads them, in the domains that both have.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage on the page.

    `rows` are (domain, the reader's summary, the noise floor); `examples` are the divergent places
    of each domain that has some.
    """

    title: str
    explanation: str
    rows: tuple[tuple[str, Summary, Summary], ...]
    examples: tuple[tuple[str, tuple[Divergent, ...]], ...]


def html(report: GateReport, *, ref: str, digest: str) -> str:
    """Return the page of mix `ref`; `digest` is the SHA-256 of the report as JSON."""
    return render(
        "gate_report.html",
        report=report,
        ref=ref,
        digest=digest,
        comparison=MixComparison.of(report),
        columns=gate_columns(report),
        metrics=gate_rows(report),
        stages=tuple(_stages(report)),
        policy=json.dumps(report.policy.model_dump(mode="json"), indent=2),
    )


def _stages(report: GateReport) -> Iterator[StageView]:
    for stage, (title, explanation) in STAGES_WITH_READER.items():
        summaries = [(domain, getattr(domain, stage)) for domain in report.domains]
        present = [(domain, summary) for domain, summary in summaries if summary is not None]
        if present:
            yield StageView(
                title=title,
                explanation=explanation,
                rows=tuple((domain.domain, s, domain.noise_floor) for domain, s in present),
                examples=tuple(
                    (domain.domain, domain.examples[stage])
                    for domain, _ in present
                    if domain.examples[stage]
                ),
            )
