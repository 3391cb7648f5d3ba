"""Check the bytes of a checkpoint once all blobs are stored, without torch.

They must have their digests, every number must be finite, and every JSON file must be JSON.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from registry import bounded_json
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.admission import check_sent
from registry.checkpoints.manifests import DTYPE_BYTES, Manifest, TensorEntry
from registry.errors import InvalidCheckpoint, InvalidInput, Problem, pointer

MAX_JSON_BYTES = 64 << 20
# A tokenizer with 256,000 tokens and as many merges has two million.
MAX_JSON_ELEMENTS = 8_000_000
# Hashing releases the interpreter lock.
HASHING_THREADS = 4
# The bits of the exponent: if all are set, the number is infinite or NaN (IEEE 754, section 3.4).
# Integers have none.
EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int | None]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F80_0000),
    "I8": (np.uint8, None),
}


def verify(blobs: BlobStore, manifest: Manifest, *, known: set[str]) -> None:
    """Read every blob that is not in `known`, and check digest, size, finite numbers and JSON.

    Raises Conflict if blobs were not sent yet, and InvalidCheckpoint with each bad tensor or file.
    """
    check_sent(blobs, manifest, known=known, permitted=manifest.digests())
    if problems := tuple(damaged(blobs, manifest, known=known)):
        raise InvalidCheckpoint("the bytes that were sent are refused", problems=problems)


def damaged(blobs: BlobStore, manifest: Manifest, *, known: set[str]) -> Iterator[Problem]:
    """Read every blob that is not in `known`, and yield what is wrong with it.

    Raises NotFound for a blob that is not stored.
    """
    checked = set(known)
    for name, entry in (*manifest.tensors.items(), *manifest.notes.rows.items()):
        if entry.digest not in checked and (error := _tensor_error(blobs, entry)):
            yield Problem(pointer("tensors", name), f"tensor {name!r} {error}")
        checked.add(entry.digest)
    for name, digest in (*manifest.files.items(), *manifest.notes.files.items()):
        if digest not in known and (error := _file_error(blobs, name, digest)):
            yield Problem(pointer("files", name), f"file {name} {error}")


def check_digests(blobs: BlobStore, manifest: Manifest) -> None:
    """Read every blob of a checkpoint and compare its bytes with its digest, in threads.

    An engine asks this before it maps them: bytes can change after a gate has read them. Raises
    InvalidCheckpoint with each blob that differs, and NotFound.
    """
    named = {digest: pointer("files", name) for name, digest in manifest.files.items()}
    named |= {entry.digest: pointer("tensors", name) for name, entry in manifest.tensors.items()}

    def actual(digest: str) -> str:
        with blobs.local_path(digest).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = zip(named.items(), pool.map(actual, named), strict=True)
        problems = tuple(
            Problem(where, f"is corrupt: its bytes have SHA-256 {other}, not {digest}")
            for (digest, where), other in found
            if other != digest
        )
    if problems:
        raise InvalidCheckpoint("stored bytes were changed", problems=problems)


def _tensor_error(blobs: BlobStore, entry: TensorEntry) -> str | None:
    """Read the bytes of a tensor once, in chunks, and return what is wrong with them."""
    width = DTYPE_BYTES[entry.dtype]
    unsigned, exponent = EXPONENTS[entry.dtype]
    sha = hashlib.sha256()
    rest, position, bad = b"", 0, None
    for chunk in blobs.read(entry.digest):
        sha.update(chunk)
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % width
        rest = data[whole:]
        if bad is None and exponent is not None:
            bits = np.frombuffer(data, unsigned, whole // width) & unsigned(exponent)
            if (hits := bits == exponent).any():
                bad = position + int(hits.argmax())
        position += whole // width
    if sha.hexdigest() != entry.digest:
        return f"is corrupt: its bytes have SHA-256 {sha.hexdigest()}, not {entry.digest}"
    if bad is not None:
        index = [int(i) for i in np.unravel_index(bad, entry.shape)]
        return f"holds NaN or infinity at {index}, expected finite numbers"
    return None


def _file_error(blobs: BlobStore, name: str, digest: str) -> str | None:
    size = blobs.size(digest) or 0
    if size > MAX_JSON_BYTES:
        return f"has {size} bytes, at most {MAX_JSON_BYTES} are taken"
    data = get_bytes(blobs, digest)
    if hashlib.sha256(data).hexdigest() != digest:
        return "is corrupt: its bytes do not have the digest that names it"
    if name.endswith(".json"):
        try:
            bounded_json.check_bounds(data, max_elements=MAX_JSON_ELEMENTS)
            json.loads(data)
        except InvalidInput as error:
            return f"holds {error.detail}"
        except (ValueError, RecursionError) as error:
            return f"is not JSON: {error}"
    return None
