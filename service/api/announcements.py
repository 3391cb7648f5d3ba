"""Announced checkpoints: reads them from a request, and lists the blobs to send."""

from collections.abc import Mapping, Sequence

from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.admission import CheckpointAnnouncement, Shard
from registry.checkpoints.manifests import Origin
from registry.errors import InvalidInput, Problem
from registry.fetching import addresses, public_hosts
from registry.fetching.addresses import PeerAddress, UrlAddress
from registry.fetching.announcements import AddressAnnouncement
from registry.imports import gguf_header
from registry.imports.announcements import AdapterAnnouncement, Announcement, GgufAnnouncement
from registry.imports.gguf_header import GgufHeader, GgufTensor
from registry.settings import settings
from service.schemas.checkpoints import CheckpointRequest, MissingBlob
from service.schemas.imports import AdapterBody, GgufBody, ImportRequest

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


def import_of(body: ImportRequest) -> Announcement:
    """Return what a request announces to import. Raises InvalidInput unless it is one thing."""
    given = [part for part in (body.adapter, body.gguf, body.address) if part is not None]
    if len(given) != 1:
        raise _refused("/adapter", "give one of adapter, gguf and from")
    origin = None if body.origin is None else body.origin.origin()
    if body.gguf is not None:
        return _gguf_of(body.gguf, origin)
    if body.adapter is not None:
        return _adapter_of(body.adapter, origin)
    if origin is not None:
        raise _refused("/origin", "the worker that fetches says where it has been")
    return _address_of(body.address or "")


def _address_of(text: str) -> AddressAnnouncement:
    address = addresses.parse(text, at="/from")
    if isinstance(address, PeerAddress):
        raise _refused(
            "/from", "another nexusmix is read by `nexusmix register --from`, with a key of its own"
        )
    if isinstance(address, UrlAddress):
        try:
            public_hosts.check(address.url, allowed=settings().allowed_origins)
        except InvalidInput as error:
            raise _refused("/from", error.detail) from error
    return AddressAnnouncement(text=text, address=address)


def _refused(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(detail, problems=(Problem(pointer, detail),))


def _adapter_of(body: AdapterBody, origin: Origin | None) -> AdapterAnnouncement:
    weights = Shard(body.weights.file, body.weights.size, body.weights.header)
    return AdapterAnnouncement(
        config=body.config,
        weights=weights,
        digest=body.digest,
        files=body.files,
        origin=origin,
    )


def _gguf_of(body: GgufBody, origin: Origin | None) -> GgufAnnouncement:
    tensors = {
        name: GgufTensor(gguf_header.type_id_of(tensor.type, tensor=name), tuple(tensor.shape), 0)
        for name, tensor in body.tensors.items()
    }
    header = GgufHeader(dict(body.metadata), tensors)
    return GgufAnnouncement(header=header, size=body.size, digest=body.digest, origin=origin)


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
