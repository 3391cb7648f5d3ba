"""JSON Schemas of the documents that the service writes and reads."""

from collections.abc import Mapping

from pydantic import BaseModel

from engine.gates.comparison_gate import DivergenceReport
from engine.gates.mix_gate import GateReport
from engine.gates.policy import Policy

SCHEMAS: Mapping[str, type[BaseModel]] = {
    "policy": Policy,
    "gate-report": GateReport,
    "divergence-report": DivergenceReport,
}
