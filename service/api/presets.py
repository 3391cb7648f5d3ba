"""/presets: the recipes that a request can start from."""

from fastapi import APIRouter

from assembler.recipes import presets
from service.schemas.common import Page
from service.schemas.mixes import PresetBody
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute

router = APIRouter(prefix="/presets", tags=["mixes"], route_class=CheckedRoute)


@router.get("")
def list_presets(_: Reader) -> Page[PresetBody]:
    """List the presets: what each is for, its fields, and where it differs from the default."""
    return Page(data=[PresetBody.of(name) for name in presets.PRESETS], has_more=False)
