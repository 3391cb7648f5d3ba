"""/health and /metrics, for monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from registry.database import db
from service.housekeeping import measures
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.threads import HEALTH

router = APIRouter(tags=["operation"], route_class=CheckedRoute)


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer 200 when the service works, 503 when the database does not answer."""
    await HEALTH.run(_ask_database)
    return {"status": "ok"}


@router.get("/metrics", response_class=Response)
def metrics(_: Reader) -> Response:
    """Return the metrics in Prometheus's text format."""
    measures.update()
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _ask_database() -> None:
    with db.transaction() as session:
        session.execute(text("SELECT 1"))
