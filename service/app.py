"""The web process: `uvicorn --factory service.app:create_alone`."""

import gc
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles

from registry import logs, tracing
from registry.settings import settings
from service import errors, gateway
from service.api import (
    blobs,
    deployments,
    embeddings,
    experts,
    families,
    files,
    health,
    keys,
    metrics,
    mix_records,
    mixes,
    presets,
    revisions,
    schemas,
    signing_key,
    workers,
)
from service.housekeeping import janitor
from service.ui import pages
from service.ui.docs_site import DocsSite
from service.ui.rendering import STATIC
from service.web import auth
from service.web.bodies import LimitBody
from service.web.connections import raise_descriptor_limit
from service.web.middleware import CheckTarget, KnownHosts, Observe
from service.web.openai_clients import OpenAiClients
from service.web.waking import Waking

API = (
    families.router,
    experts.router,
    experts.suggest_router,
    files.router,
    blobs.router,
    mixes.router,
    mixes.plan_router,
    revisions.router,
    mix_records.router,
    presets.router,
    deployments.router,
    schemas.router,
    signing_key.router,
    keys.router,
    keys.link_router,
    workers.router,
)


def create_alone() -> FastAPI:
    """Return the web application of a process that does nothing else.

    What it has loaded stays, and is not searched for garbage any more: that stopped all requests,
    so that one in a hundred took 30 ms longer (`bench gateway`).
    """
    tracing.configure("web")
    app = create_app()
    gc.collect()
    gc.freeze()
    return app


def create_app() -> FastAPI:
    """Return the web application. It first needs the database when a request comes."""
    app = FastAPI(
        title="nexusmix",
        lifespan=_lifespan,
        openapi_url="/api/v1/openapi.json",
        # Both load their script from another server, which our content policy forbids.
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    # Middleware that is added last sees a request first.
    app.add_middleware(LimitBody)
    app.add_middleware(OpenAiClients)
    app.add_middleware(CheckTarget)
    if auth.is_loopback(settings().host):
        app.add_middleware(KnownHosts, hosts=_loopback_names(settings().host))
    app.add_middleware(Observe)
    for router in API:
        app.include_router(router, prefix="/api/v1", responses=errors.DOCUMENTED)
    app.include_router(gateway.router, responses=errors.OPENAI_DOCUMENTED)
    app.include_router(embeddings.router, responses=errors.OPENAI_DOCUMENTED)
    app.include_router(health.router, responses=errors.DOCUMENTED)
    app.include_router(metrics.router, responses=errors.DOCUMENTED)
    _summarize(app)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]  # as FastAPI documents it
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/docs", DocsSite(), name="docs")
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, made once."""
    if app.openapi_schema is None:
        errors.document(FastAPI.openapi(app))
    return FastAPI.openapi(app)


def _summarize(app: FastAPI) -> None:
    """Give every route the first sentence of its description as its summary."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            route.summary = re.split(r"[.;:](?:\s|$)", route.description, maxsplit=1)[0]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    logs.configure("web", level=settings().log_level)
    raise_descriptor_limit()
    # Our own access log leaves out query strings: that of a link signs in.
    logging.getLogger("uvicorn.access").disabled = True
    async with gateway.open_client() as engines:
        app.state.engines = engines
        app.state.callers = auth.remembered_callers()
        app.state.routes = gateway.remembered_routes()
        app.state.waking = Waking(app.state.routes)
        app.state.models = gateway.remembered_models()
        try:
            with janitor.at_work():
                yield
        finally:
            for memory in (app.state.callers, app.state.routes, app.state.models):
                memory.close()


def _loopback_names(host: str) -> frozenset[str]:
    """Return the host names that requests may use when the server listens on loopback.

    A foreign page can let its own name point to this machine (DNS rebinding) and read what needs no
    key here. A server that listens elsewhere does not know its names, but always asks for a key.
    """
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()})
