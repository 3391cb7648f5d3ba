"""/health and /metrics, for monitoring."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from service.web.auth import Reader
from service.web.deps import Session

router = APIRouter(tags=["operation"])


@router.get("/health")
def health(session: Session) -> dict[str, str]:
    """Answer 200 when the service works, 503 when the database does not answer."""
    session.execute(text("SELECT 1"))
    return {"status": "ok"}


@router.get("/metrics", response_class=Response)
def metrics(_: Reader) -> Response:
    """Return the metrics in Prometheus's text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
