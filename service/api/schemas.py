"""/schemas: what the documents of this service look like, as JSON Schema."""

from typing import Any

from fastapi import APIRouter

from registry.errors import NotFound
from service.json_schemas import SCHEMAS
from service.web.auth import Reader

router = APIRouter(prefix="/schemas", tags=["schemas"])


@router.get("/{name}")
def get(name: str, _: Reader) -> dict[str, Any]:
    """Of `policy`, `gate-report` or `divergence-report`."""
    model = SCHEMAS.get(name)
    if model is None:
        raise NotFound(f"no schema {name!r}; there are {', '.join(SCHEMAS)}")
    return model.model_json_schema()
