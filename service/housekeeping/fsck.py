"""Checks every blob: is it there, and are its bytes those that its digest names?"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from registry.blobs.blobs import StoredBlob, StoreUpkeep
from registry.errors import NotFound
from service.housekeeping.needed_blobs import NeededBlobs

NOTHING_NEEDS_IT = "nothing needs it"

OnBytes = Callable[[int], None]


class Fault(StrEnum):
    """What is wrong with a blob."""

    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Finding:
    """A blob that is missing or damaged, and some of what needs it."""

    digest: str
    fault: Fault
    needed_by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.digest} is {self.fault}: {'; '.join(self.needed_by) or NOTHING_NEEDS_IT}"


def check(
    blobs: StoreUpkeep, needed: NeededBlobs, *, on_bytes: OnBytes, quick: bool = False
) -> Iterator[Finding]:
    """Yield what is wrong in the store: blobs that are needed, then those that nothing needs.

    With `quick` only names and sizes are compared, and no bytes are read. `on_bytes` gets the
    number of bytes that were read. Raises Unavailable if the store does not answer.
    """
    stored = {blob.digest: blob for blob in blobs.stored()}
    for digest in sorted(needed.needed_by.keys() | stored.keys()):
        fault = _fault(digest, stored.get(digest), blobs, needed, on_bytes, quick=quick)
        if fault is not None:
            yield Finding(digest, fault, tuple(needed.needed_by.get(digest, ())))


def is_sound(digest: str, blobs: StoreUpkeep, on_bytes: OnBytes) -> bool | None:
    """Tell whether a blob has the bytes that its digest names; None if it is not there."""
    sha = hashlib.sha256()
    try:
        for chunk in blobs.read_stored(digest):
            sha.update(chunk)
            on_bytes(len(chunk))
    except NotFound:
        return None
    return sha.hexdigest() == digest


def _fault(
    digest: str,
    stored: StoredBlob | None,
    blobs: StoreUpkeep,
    needed: NeededBlobs,
    on_bytes: OnBytes,
    *,
    quick: bool,
) -> Fault | None:
    if quick:
        # What was set aside comes back when it is asked for.
        size = blobs.size(digest) if stored is None else stored.num_bytes
        if size is None:
            return Fault.MISSING if digest in needed.required else None
        return None if size == needed.sizes.get(digest, size) else Fault.DAMAGED
    sound = is_sound(digest, blobs, on_bytes)
    if sound is None:
        # What nothing needs may have been removed since it was listed.
        return Fault.MISSING if digest in needed.required else None
    return None if sound else Fault.DAMAGED
