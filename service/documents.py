"""Documents that are written and read as JSON, by the names of their schemas."""

from collections.abc import Mapping

from pydantic import BaseModel

from engine.gates import GateReport
from engine.model_gate import DivergenceReport
from engine.policies import Policy

SCHEMAS: Mapping[str, type[BaseModel]] = {
    "policy": Policy,
    "gate-report": GateReport,
    "divergence-report": DivergenceReport,
}
