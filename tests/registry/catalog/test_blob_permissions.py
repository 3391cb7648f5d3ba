"""Bytes may be used by who has sent them, and by everybody where they can be downloaded."""

from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import blob_permissions
from tests import tiny

DIGEST = "a" * 64


def test_a_blob_is_permitted_to_its_sender(session: Session) -> None:
    blob_permissions.record_sent(session, [DIGEST], sender=1)
    blob_permissions.record_sent(session, [DIGEST], sender=1)
    digests = [DIGEST, "b" * 64]
    assert blob_permissions.find_permitted(session, digests, sender=1) == {DIGEST}
    assert blob_permissions.find_permitted(session, digests, sender=2) == set()


def test_a_checkpoint_to_download_is_permitted_to_everybody(
    session: Session, blobs: LocalBlobs
) -> None:
    manifest = tiny.store_manifest(blobs)
    blob_permissions.record_downloadable(session, manifest)
    digests = manifest.digests()
    assert blob_permissions.find_permitted(session, digests | {DIGEST}, sender=2) == digests


def test_what_an_object_store_holds_for_a_sender_is_noted(
    session: Session, blobs: LocalBlobs
) -> None:
    class Waiting(LocalBlobs):
        def accept(self, digest: str, *, sender: int) -> bool:
            return sender == 1

    waiting = Waiting(blobs.root)
    assert blob_permissions.accept(session, waiting, [DIGEST], sender=2) == set()
    assert blob_permissions.accept(session, waiting, [DIGEST], sender=1) == {DIGEST}
    assert blob_permissions.find_permitted(session, [DIGEST], sender=1) == {DIGEST}


def test_nothing_is_noted_for_an_empty_announcement(session: Session) -> None:
    blob_permissions.record_sent(session, [], sender=1)
    assert blob_permissions.find_permitted(session, [], sender=1) == set()
