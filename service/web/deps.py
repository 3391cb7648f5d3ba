"""What routes ask for, as aliases, so that their signatures read like sentences."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Query
from sqlalchemy import orm

from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.database import db


def _session() -> Iterator[orm.Session]:
    with db.transaction() as session:
        yield session


# The scope ends before the answer is sent: nothing is acknowledged that is not committed.
Session = Annotated[orm.Session, Depends(_session, scope="function")]
Blobs = Annotated[BlobStore, Depends(blob_stores.store)]
Limit = Annotated[int, Query(ge=1, le=100, description="Most entries of one page.")]
After = Annotated[str | None, Query(description="The last `id` of the page before.")]
