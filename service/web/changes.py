"""Types of recipe parts in a request body: documented with their fields, but not checked here.

`assembler.mixes.new_mix` checks them, so that one answer lists every problem of a request.
"""

from typing import Annotated, Any

from pydantic import BaseModel, WithJsonSchema

from assembler.recipes.recipe import Finetune
from engine.compression.int8_curve import Compression
from engine.gates.policy import Policy


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of `model` without references, which OpenAPI would not find."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for field in schema["properties"].values():
        if "$ref" in field:
            field |= definitions[field.pop("$ref").rpartition("/")[2]] | field
    return schema


FinetuneChanges = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Finetune))]
CompressionFields = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Compression))]
PolicyChanges = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Policy))]
