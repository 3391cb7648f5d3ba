"""Blobs written beside a store are read with it and removed afterwards."""

import pytest

from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.blobs.overlay_blobs import beside
from registry.errors import NotFound


def test_writes_do_not_reach_the_store(blobs: LocalBlobs) -> None:
    kept = put_bytes(blobs, b"kept")
    with beside(blobs) as overlay:
        written = put_bytes(overlay, b"written")
        assert get_bytes(overlay, kept) == b"kept"
        assert get_bytes(overlay, written) == b"written"
        assert overlay.local_path(kept) == blobs.local_path(kept)
        path = overlay.local_path(written)
        assert b"".join(overlay.read(written, start=1, end=3)) == b"ri"
        assert blobs.size(written) is None
    assert not path.exists()
    assert get_bytes(blobs, kept) == b"kept"


def test_a_blob_in_neither_store_is_not_found(blobs: LocalBlobs) -> None:
    with beside(blobs) as overlay:
        assert overlay.size("0" * 64) is None
        with pytest.raises(NotFound):
            get_bytes(overlay, "0" * 64)


def test_an_overlay_gives_no_upload_address(blobs: LocalBlobs) -> None:
    with beside(blobs) as overlay:
        assert overlay.upload_target("0" * 64, num_bytes=1, seconds=1, sender=1) is None
        assert not overlay.accept("0" * 64, sender=1)
