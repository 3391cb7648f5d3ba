"""/metrics and /metrics/engines, for Prometheus."""

from collections.abc import Iterable, Sequence

import anyio
import httpx
import structlog
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from engine.serving import model_routes
from engine.serving.tables import Deployment
from engine.vllm_server import endpoints
from registry.database import db
from registry.errors import NexusmixError
from registry.settings import settings
from service.api import work_measures
from service.housekeeping import measures
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.threads import READING

router = APIRouter(prefix="/metrics", tags=["operation"], route_class=CheckedRoute)
log = structlog.stdlib.get_logger(__name__)

# An engine that computes answers a scrape between two of its steps.
ENGINE_SECONDS = 5.0
# The label that tells engines of one model apart.
DEPLOYMENT = "deployment"


@router.get("", response_class=Response)
def get(_: Reader) -> Response:
    """Return the metrics of the service in Prometheus's text format."""
    measures.update()
    try:
        with db.transaction() as session:
            work_measures.update(session)
    except (NexusmixError, SQLAlchemyError) as error:
        log.warning("metrics of what is made are not up to date", error=str(error))
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/engines", response_class=Response)
async def get_of_engines(request: Request, _: Reader) -> Response:
    """Return the metrics of all engines of this host, each with the label `deployment`.

    They are those of vLLM, and `nexusmix:expert_tokens_total`. An engine that does not answer in
    time is left out.
    """
    rows = await READING.run(_ready_here)
    texts: dict[int, str] = {}
    async with anyio.create_task_group() as group:
        for row in rows:
            group.start_soon(_ask, request.app.state.engines, row, texts)
    merged = _Merged([(str(row.id), texts[row.id]) for row in rows if row.id in texts])
    registry = CollectorRegistry()
    registry.register(merged)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Merged(Collector):
    """The metrics of several processes, those of one name together."""

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        """`texts` are pairs of a deployment and the text of its metrics."""
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for deployment, text in self._texts:
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = sample.labels | {DEPLOYMENT: deployment}
                    merged.samples.append(sample._replace(labels=labels))
        return families.values()


def _ready_here() -> list[Deployment]:
    with db.transaction() as session:
        rows = model_routes.available(session).values()
        return [row for row in rows if row.address and row.host in (None, settings().host_name)]


async def _ask(client: httpx.AsyncClient, row: Deployment, texts: dict[int, str]) -> None:
    """Store the text of the metrics of an engine, if it answers."""
    address = str(row.address)
    try:
        with anyio.fail_after(ENGINE_SECONDS):
            answer = await client.get(
                endpoints.url(address) + "/metrics",
                headers=endpoints.headers(address),
                extensions={"engine": address},
            )
            answer.raise_for_status()
        texts[row.id] = answer.text
    except (httpx.HTTPError, TimeoutError) as error:
        log.warning("an engine tells no metrics", deployment=row.id, error=repr(error))
