"""Announced checkpoints: from the body of a request, and to the list of what must be sent."""

from collections.abc import Sequence

from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.admission import Shard
from service.schemas.checkpoints import CheckpointRequest, MissingBlob

# Time to send a blob to an object store; a client that needs more asks again.
PRESIGNED_SECONDS = 6 * 3600


def shards_of(body: CheckpointRequest) -> list[Shard]:
    return [Shard(shard.file, shard.size, shard.header) for shard in body.shards]


def missing_blobs(
    blobs: BlobStore, digests: Sequence[str], *, manifest_digest: str
) -> list[MissingBlob]:
    manifest = manifests.load(blobs, manifest_digest)
    sizes = {entry.digest: entry.num_bytes for entry in manifest.tensors.values()}
    return [_missing(blobs, digest, sizes.get(digest)) for digest in digests]


def _missing(blobs: BlobStore, digest: str, size: int | None) -> MissingBlob:
    # Files are small and come without a size: they always pass through here.
    if size is not None:
        target = blobs.upload_target(digest, num_bytes=size, seconds=PRESIGNED_SECONDS)
        if target is not None:
            return MissingBlob(digest=digest, size=size, url=target.url, headers=target.headers)
    return MissingBlob(digest=digest, size=size, url=f"/api/v1/blobs/{digest}")
