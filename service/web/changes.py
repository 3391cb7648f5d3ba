"""Types of recipe parts in a request body: documented with their fields, but not checked here.

`assembler.mixes.new_mix` checks them, so that one answer lists every problem of a request.
"""

from typing import Annotated, Any

from pydantic import WithJsonSchema

from assembler.recipes.recipe import Finetune
from engine.compression.int8_curve import Compression
from engine.gates.policy import Policy
from service.json_schemas import schema_of

FinetuneChanges = Annotated[dict[str, Any], WithJsonSchema(schema_of(Finetune))]
CompressionFields = Annotated[dict[str, Any], WithJsonSchema(schema_of(Compression))]
PolicyChanges = Annotated[dict[str, Any], WithJsonSchema(schema_of(Policy))]
