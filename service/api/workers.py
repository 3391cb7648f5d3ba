"""/workers: whether anything works on what was requested."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from assembler.mixes import worker_presence
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.deps import Session

router = APIRouter(prefix="/workers", tags=["operation"], route_class=CheckedRoute)


class WorkersBody(BaseModel):
    """The workers of this service."""

    object: Literal["workers"] = Field(default="workers", description="The kind of this object.")
    running: int = Field(description="Number of workers; with 0, nothing goes on until one starts.")


@router.get("")
def get(session: Session, _: Reader) -> WorkersBody:
    """Return how many workers are running: they check, embed, train and mix."""
    return WorkersBody(running=worker_presence.count(session))
