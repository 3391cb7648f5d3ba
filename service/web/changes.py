"""Parts of a recipe as a request sends them: documented here, and checked where they are read.

So that every mistake of a request comes in one list, see `assembler.mixes.new_mix`.
"""

from typing import Annotated, Any

from pydantic import BaseModel, WithJsonSchema

from assembler.recipes.recipe import Finetune
from engine.compression.int8_curve import Compression
from engine.gates.policy import Policy


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Whole in one piece: what it refers to would be looked for in the API's own document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    for field in schema["properties"].values():
        if "$ref" in field:
            field |= definitions[field.pop("$ref").rpartition("/")[2]] | field
    return schema


FinetuneChanges = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Finetune))]
CompressionFields = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Compression))]
PolicyChanges = Annotated[dict[str, Any], WithJsonSchema(_schema_of(Policy))]
