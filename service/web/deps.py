"""Dependencies of routes as type aliases."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Path, Query
from sqlalchemy import orm

from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.database import db
from service.schemas.common import Id, Line
from service.web.released_blobs import ReleasedBlobs


def _session() -> Iterator[orm.Session]:
    with db.transaction() as session:
        yield session


FamilyName = Annotated[Line, Path(description="Name of the family.")]
ExpertName = Annotated[Line, Path(description="Name of the expert.")]
MixName = Annotated[Line, Path(description="Name of the mix.")]
VersionNumber = Annotated[Id, Path(description="Number of the version, from 1.")]


def _mix_ref(name: MixName, number: VersionNumber) -> str:
    return f"{name}@{number}"


# The transaction ends before the answer is sent, so the answer never reports uncommitted work.
Session = Annotated[orm.Session, Depends(_session, scope="function")]


def _blobs(session: Session) -> BlobStore:
    return ReleasedBlobs(blob_stores.store(), session)


# No transaction of the request is open while it reads or writes bytes.
Blobs = Annotated[BlobStore, Depends(_blobs)]
# `NAME@NUMBER`, from the parameters `name` and `number` of the path.
MixRef = Annotated[str, Depends(_mix_ref)]
Limit = Annotated[int, Query(ge=1, le=100, description="Largest number of entries on a page.")]
After = Annotated[Line | None, Query(description="The `id` of the last entry on the page before.")]
AfterNumber = Annotated[
    Id | None, Query(description="The `id` of the last entry on the page before.")
]
