"""All figures of a demo as one JSON object, to compare machines and versions."""

import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from engine.gates.mix_gate import GateReport
from engine.gates.report import software_versions
from registry import cpu_features
from service.demo.bars import Bar
from service.demo.memory import Peaks
from service.demo.sampling import Completion, tokens_per_second
from service.reports.mix_comparison import MixComparison
from service.schemas.mixes import MixBody
from service.terminal.stages import Stages


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a demo measured."""

    address: str
    family: str
    mix: MixBody
    # Seconds of each step, from the run in which the mix was made.
    step_seconds: dict[str, float]
    gate: GateReport
    comparison: MixComparison
    bars: list[Bar]
    completions: list[Completion]

    @property
    def broken(self) -> list[Bar]:
        """Promises that were not kept."""
        return [bar for bar in self.bars if not bar.held]


def to_json(report: Report, *, stages: Stages, peaks: Peaks) -> dict[str, Any]:
    """Return the figures: times in seconds, perplexities, memory in bytes."""
    comparison = report.comparison
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "family": report.family,
        "seconds": round(stages.seconds, 2),
        "stages": [
            {"stage": s.title, "seconds": round(s.seconds, 2), "result": s.result}
            for s in stages.done
        ],
        "mix": report.mix.model_dump(mode="json"),
        "mix_step_seconds": report.step_seconds,
        "perplexity": {
            column.title: {
                "domains": dict(zip(comparison.domains, column.values, strict=True)),
                "mean_log": column.mean_log,
                "share_of_gain": comparison.share_of_gain(column),
            }
            for column in (*comparison.columns, comparison.oracle)
        },
        "bars": [asdict(bar) | {"held": bar.held} for bar in report.bars],
        "gate": report.gate.model_dump(mode="json"),
        "completions": [asdict(completion) for completion in report.completions],
        "tokens_per_second": tokens_per_second(report.completions),
        "peak_memory": peaks.to_json(),
        "versions": software_versions() | {"python": platform.python_version()},
        "machine": _machine(),
    }


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": cpu_features.name(),
        "vector_instructions": list(cpu_features.vector_instructions()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
    }
