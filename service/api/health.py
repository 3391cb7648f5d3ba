"""/health, for whoever watches the service."""

from fastapi import APIRouter
from sqlalchemy import text

from registry.database import db
from service.web.checked_routes import CheckedRoute
from service.web.threads import HEALTH

router = APIRouter(tags=["operation"], route_class=CheckedRoute)


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer 200 when the service works, 503 when the database does not answer."""
    await HEALTH.run(_ask_database)
    return {"status": "ok"}


def _ask_database() -> None:
    with db.transaction() as session:
        session.execute(text("SELECT 1"))
