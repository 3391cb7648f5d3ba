"""Who may use a blob in an announcement: who has sent its bytes, and who may download them.

A digest is public, and no permission: the store may hold a blob with it that belongs to somebody
else, such as the documents of another expert.
"""

from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.database import db
from registry.database.tables import DownloadableBlob, SentBlob


def record_sent(session: Session, digests: Iterable[str], *, sender: int) -> None:
    """Note that a sender, named by the id of its API key, has sent the bytes of blobs."""
    rows = [{"sender": sender, "digest": digest} for digest in sorted(digests)]
    if rows:
        session.execute(insert(SentBlob).values(rows).on_conflict_do_nothing())


def record_downloadable(session: Session, manifest: Manifest) -> None:
    """Note that everybody may download the tensors and files of a checkpoint.

    Documents are no part of a checkpoint, so their digest never comes here.
    """
    rows = [{"digest": digest} for digest in sorted(manifest.digests())]
    session.execute(insert(DownloadableBlob).values(rows).on_conflict_do_nothing())


def find_permitted(session: Session, digests: Collection[str], *, sender: int) -> set[str]:
    """Return those of `digests` that a sender has sent, or may download."""
    sent = select(SentBlob.digest).where(SentBlob.sender == sender, SentBlob.digest.in_(digests))
    downloadable = select(DownloadableBlob.digest).where(DownloadableBlob.digest.in_(digests))
    return set(session.scalars(sent.union(downloadable)))


def accept(
    session: Session, blobs: BlobStore, digests: Collection[str], *, sender: int
) -> set[str]:
    """Take what a sender has sent directly to an object store; return what it may use now.

    The object store keeps such bytes apart by their sender until this call. It ends the
    transaction, so that none is open while bytes are copied, or read afterwards.
    """
    permitted = find_permitted(session, digests, sender=sender)
    db.release(session)
    arrived = {digest for digest in set(digests) - permitted if blobs.accept(digest, sender=sender)}
    record_sent(session, arrived, sender=sender)
    db.release(session)
    return permitted | arrived
