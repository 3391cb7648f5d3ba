"""Announced checkpoints: reads them from a request, and lists the blobs to send."""

from collections.abc import Mapping, Sequence

from registry.blobs.blobs import BlobStore
from registry.catalog.imports import AdapterAnnouncement
from registry.checkpoints import manifests
from registry.checkpoints.admission import CheckpointAnnouncement, Shard
from service.schemas.checkpoints import CheckpointRequest, MissingBlob
from service.schemas.imports import AdapterBody

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


def adapter_of(body: AdapterBody) -> AdapterAnnouncement:
    """Return the adapter that a request announces."""
    weights = Shard(body.weights.file, body.weights.size, body.weights.header)
    return AdapterAnnouncement(
        config=body.config, weights=weights, digest=body.digest, files=body.files
    )


def tensor_sizes(blobs: BlobStore, manifest_digest: str) -> dict[str, int]:
    """Return the sizes in bytes of the tensors and rows of a checkpoint, by digest."""
    manifest = manifests.load(blobs, manifest_digest)
    entries = (*manifest.tensors.values(), *manifest.notes.rows.values())
    return {entry.digest: entry.num_bytes for entry in entries}


def missing_blobs(
    blobs: BlobStore, digests: Sequence[str], *, sizes: Mapping[str, int], sender: int
) -> list[MissingBlob]:
    """Return where the API key `sender` sends each blob of `digests`."""
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
