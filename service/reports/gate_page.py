"""The gate report of a mix as one HTML file that needs nothing else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.divergence.aggregates import Summary
from engine.gates.mix_gate import GateReport
from engine.gates.policy import Stage
from engine.gates.report import Divergent
from service.comparison import Comparison
from service.terminal.gate_tables import rows
from service.ui.rendering import render

# Stages in which others read the candidate's texts: what they are called, and who reads.
READERS: Mapping[Stage, tuple[str, str]] = {
    "served": ("Served against reference", "The engine that serves reads the texts."),
    "finetuned": ("What the finetune moved", "The mix as it was before its finetune reads them."),
    "base": (
        "Against the version before",
        "The version that the mix was made from reads them, in the domains that both have.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class StageView:
    """`rows` are domain, what was made of its texts, and the noise floor."""

    title: str
    explanation: str
    rows: tuple[tuple[str, Summary, Summary], ...]
    examples: tuple[tuple[str, tuple[Divergent, ...]], ...]


def html(report: GateReport, *, ref: str, digest: str) -> str:
    """With survival curves, and both sides of where texts parted; `digest` is the JSON report's."""
    return render(
        "gate_report.html",
        report=report,
        ref=ref,
        digest=digest,
        comparison=Comparison.of(report),
        metrics=rows(report),
        stages=tuple(_stages(report)),
        policy=json.dumps(report.policy.model_dump(mode="json"), indent=2),
    )


def _stages(report: GateReport) -> Iterator[StageView]:
    for stage, (title, explanation) in READERS.items():
        found = [(own, getattr(own, stage)) for own in report.domains]
        read = [(own, summary) for own, summary in found if summary is not None]
        if read:
            yield StageView(
                title=title,
                explanation=explanation,
                rows=tuple((own.domain, summary, own.noise_floor) for own, summary in read),
                examples=tuple(
                    (own.domain, own.examples[stage]) for own, _ in read if own.examples[stage]
                ),
            )
