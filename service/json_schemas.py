"""JSON Schemas of the documents that the service writes and reads."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from engine.gates.comparison_gate import DivergenceReport
from engine.gates.mix_gate import GateReport
from engine.gates.policy import Policy

SCHEMAS: Mapping[str, type[BaseModel]] = {
    "policy": Policy,
    "gate-report": GateReport,
    "divergence-report": DivergenceReport,
}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of `model` without references, which OpenAPI would not find."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for field in schema["properties"].values():
        if "$ref" in field:
            field |= definitions[field.pop("$ref").rpartition("/")[2]] | field
    return schema
