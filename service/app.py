"""The web process: `uvicorn --factory service.app:create_app`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from registry import logs
from registry.settings import settings
from service import errors, gateway
from service.api import (
    blobs,
    deployments,
    experts,
    families,
    files,
    health,
    mixes,
    schemas,
    signing_key,
)
from service.ui import pages
from service.ui.docs_site import DocsSite
from service.ui.rendering import STATIC
from service.web import auth
from service.web.middleware import KnownHosts, LimitBody, Observe

API = (
    families.router,
    experts.router,
    experts.suggest_router,
    files.router,
    blobs.router,
    mixes.router,
    mixes.plan_router,
    mixes.presets_router,
    deployments.router,
    schemas.router,
    signing_key.router,
)


def create_app() -> FastAPI:
    """Everything that answers HTTP. The database is first needed when a request comes."""
    app = FastAPI(
        title="nexusmix",
        lifespan=_lifespan,
        openapi_url="/api/v1/openapi.json",
        # Both pages load their script from elsewhere, which our content policy forbids.
        docs_url=None,
        redoc_url=None,
    )
    errors.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(LimitBody)
    if auth.is_loopback(settings().host):
        app.add_middleware(KnownHosts, hosts=_own_hosts(settings().host))
    app.add_middleware(Observe)
    for router in API:
        app.include_router(router, prefix="/api/v1")
    app.include_router(gateway.router)
    app.include_router(health.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.mount("/docs", DocsSite(), name="docs")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    logs.configure("web", level=settings().log_level)
    # Ours has the same lines, without the query strings that may carry a key.
    logging.getLogger("uvicorn.access").disabled = True
    async with gateway.open_client() as engines:
        app.state.engines = engines
        yield


def _own_hosts(host: str) -> frozenset[str]:
    """Names that a request may address us by on a loopback address.

    A page elsewhere can point a name of its own at this machine (DNS rebinding) and would read
    what is open here. A server that others can reach asks everybody for a key instead, and cannot
    know the names it goes by.
    """
    return frozenset({"localhost", "127.0.0.1", "::1", host.lower()})
