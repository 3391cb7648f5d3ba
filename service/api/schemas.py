"""/schemas: the JSON Schemas of the documents of this service."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from registry.errors import NotFound
from service.json_schemas import SCHEMAS
from service.schemas.common import Line
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute

router = APIRouter(prefix="/schemas", tags=["schemas"], route_class=CheckedRoute)

SchemaName = Annotated[Line, Path(description="Name of the document.")]


@router.get("/{name}")
def get(name: SchemaName, _: Reader) -> dict[str, Any]:
    """Return the schema of `policy`, `gate-report` or `divergence-report`."""
    model = SCHEMAS.get(name)
    if model is None:
        raise NotFound(f"no schema {name!r}; there are {', '.join(SCHEMAS)}")
    return model.model_json_schema()
