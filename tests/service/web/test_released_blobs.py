"""The store of a request ends its transaction before it reads or writes bytes.

All tests of routes check that routes keep to it: see `tests.service.web.open_transactions`.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore, LocalBlobs, get_bytes, put_bytes
from registry.database import db
from service.web.released_blobs import ReleasedBlobs

DATA = b"tensor bytes"


@pytest.mark.parametrize(
    "call",
    [
        lambda blobs, digest: blobs.size(digest),
        lambda blobs, digest: blobs.keep(digest),
        lambda blobs, digest: put_bytes(blobs, DATA),
        lambda blobs, digest: get_bytes(blobs, digest),
        lambda blobs, digest: blobs.local_path(digest),
        lambda blobs, digest: blobs.accept(digest, sender=1),
        lambda blobs, digest: blobs.upload_target(digest, num_bytes=1, seconds=1, sender=1),
    ],
)
def test_each_call_gives_the_connection_back(
    session: Session, blobs: LocalBlobs, call: Callable[[BlobStore, str], object]
) -> None:
    digest = put_bytes(blobs, DATA)
    session.execute(text("SELECT 1"))
    assert db.engine().pool.checkedout() == 1  # type: ignore[attr-defined]
    call(ReleasedBlobs(blobs, session), digest)
    assert db.engine().pool.checkedout() == 0  # type: ignore[attr-defined]


def test_the_bytes_are_those_of_the_store(session: Session, blobs: LocalBlobs) -> None:
    released = ReleasedBlobs(blobs, session)
    digest = put_bytes(released, DATA)
    assert get_bytes(blobs, digest) == get_bytes(released, digest) == DATA
    assert b"".join(released.read(digest, start=1, end=3)) == DATA[1:3]
