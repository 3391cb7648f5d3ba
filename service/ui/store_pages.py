"""The page about the store: its disk, what house-keeping removed, and what a scrub found."""

import shutil
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from registry.blobs import blob_stores
from registry.settings import settings
from service.housekeeping import collection, janitor, scrub
from service.tables import BlobFault, HousekeepingRun
from service.ui.rendering import PageRoute, Visitor, page
from service.web.deps import Session

router = APIRouter(route_class=PageRoute, include_in_schema=False)

MAX_FAULTS = 200


@dataclass(frozen=True)
class Disk:
    """The disk of the data folder, in bytes."""

    free: int
    total: int
    reserve: int

    @property
    def is_full(self) -> bool:
        """Whether no more tensors are taken."""
        return self.free <= self.reserve


@router.get("/store")
def show_store(request: Request, session: Session, _: Visitor) -> Response:
    """Show the store."""
    return page(request, "store.html", would=None, **_context(session))


@router.get("/store/needless")
def show_needless(request: Request, session: Session, _: Visitor) -> Response:
    """Show the store, and what a collection would remove now."""
    would = collection.collect(blob_stores.store(), dry_run=True)
    return page(request, "store.html", would=would, **_context(session))


def _context(session: OrmSession) -> dict[str, Any]:
    faults = select(BlobFault).order_by(BlobFault.found_at.desc()).limit(MAX_FAULTS)
    return {
        "disk": _disk(),
        "kept": _last(session, janitor.KIND),
        "scrub": _last(session, scrub.KIND),
        "faults": session.scalars(faults).all(),
        "hours": settings().housekeeping_hours,
    }


def _disk() -> Disk:
    settings().home.mkdir(parents=True, exist_ok=True)
    usage = shutil.disk_usage(settings().home)
    return Disk(usage.free, usage.total, settings().disk_reserve_bytes)


def _last(session: OrmSession, kind: str) -> HousekeepingRun | None:
    query = select(HousekeepingRun).where(HousekeepingRun.kind == kind)
    return session.scalar(query.order_by(HousekeepingRun.id.desc()).limit(1))
