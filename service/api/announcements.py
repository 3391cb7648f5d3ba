"""Announced checkpoints: reads them from a request, and lists the blobs to send."""

from collections.abc import Sequence

from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.admission import CheckpointAnnouncement, Shard
from service.schemas.checkpoints import CheckpointRequest, MissingBlob

# Time to send a blob to an object store. A slower client announces the checkpoint again.
PRESIGNED_SECONDS = 6 * 3600


def announcement_of(body: CheckpointRequest) -> CheckpointAnnouncement:
    """Return the checkpoint that a request announces."""
    return CheckpointAnnouncement(
        config=body.config,
        files=body.files,
        shards=[Shard(shard.file, shard.size, shard.header) for shard in body.shards],
        digests=body.digests,
        notes=body.notes.notes(),
    )


def missing_blobs(
    blobs: BlobStore, digests: Sequence[str], *, manifest_digest: str, sender: int
) -> list[MissingBlob]:
    """Return where the API key `sender` sends each blob of `digests`."""
    manifest = manifests.load(blobs, manifest_digest)
    entries = (*manifest.tensors.values(), *manifest.notes.rows.values())
    sizes = {entry.digest: entry.num_bytes for entry in entries}
    return [_missing(blobs, digest, sizes.get(digest), sender) for digest in digests]


def _missing(blobs: BlobStore, digest: str, size: int | None, sender: int) -> MissingBlob:
    # Files have no size here. They are small and always sent to this service.
    if size is not None:
        target = blobs.upload_target(
            digest, num_bytes=size, seconds=PRESIGNED_SECONDS, sender=sender
        )
        if target is not None:
            return MissingBlob(digest=digest, size=size, url=target.url, headers=target.headers)
    return MissingBlob(digest=digest, size=size, url=f"/api/v1/blobs/{digest}")
