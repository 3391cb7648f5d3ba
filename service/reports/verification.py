"""Checks a published mix against the signed statement about it.

The statement names the checkpoint, the gate report, the recipe and the provenance by digest. The
checkpoint names its tensors and files; the report and the provenance name the checkpoint. Every
check hashes the bytes again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from assembler.assembly.provenance import Provenance
from assembler.mixes.waivers import Override
from engine.gates.mix_gate import GateReport
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.attestations import Attestation, Statement
from registry.checkpoints.exports import OnBytes
from registry.checkpoints.file_names import ATTESTATION, CONFIG, TENSORS
from registry.checkpoints.manifests import Manifest, TensorEntry, json_digest
from registry.checkpoints.safetensors_header import read_header
from registry.errors import InvalidInput, NotFound
from registry.ingest.folder_contents import read_config
from registry.ingest.sources import Source

# Damaged or missing blobs that a check names; it counts the others.
MAX_NAMES = 5

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Check:
    """The result of one check; `detail` says what was found, or what is wrong."""

    title: str
    holds: bool
    detail: str


def check_version(
    attestation: Attestation, blobs: BlobStore, *, trusted_key: str, on_bytes: OnBytes
) -> list[Check]:
    """Check everything that the statement names, in a store that has the blobs."""
    statement = attestation.statement
    checks = [_signature(attestation, trusted_key)]
    manifest = _manifest(statement, blobs)
    checks.append(_found("checkpoint", manifest, statement.manifest))
    if manifest is not None:
        checks.append(_blobs(manifest, blobs, on_bytes))
    return [*checks, *_records(statement, blobs)]


def check_folder(folder: Path, *, trusted_key: str | None, on_bytes: OnBytes) -> list[Check]:
    """Check the signature in a downloaded folder, and that the folder holds the signed checkpoint.

    Without a trusted key any key is accepted, and the check names it. Raises InvalidInput when the
    folder has no readable attestation, InvalidCheckpoint for a wrong safetensors header.
    """
    try:
        data = (folder / ATTESTATION).read_bytes()
        attestation = Attestation.model_validate_json(data)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{folder} has no {ATTESTATION}: only a published mix that was exported has one"
        ) from error
    except ValidationError as error:
        raise InvalidInput(f"{folder / ATTESTATION} is not an attestation") from error
    actual = _folder_manifest(folder, on_bytes).digest
    expected = attestation.statement.manifest
    return [
        _signature(attestation, trusted_key),
        Check(
            "checkpoint",
            actual == expected,
            expected if actual == expected else f"the files are {actual}, signed was {expected}",
        ),
    ]


def num_bytes(attestation: Attestation, blobs: BlobStore) -> int:
    """Return the bytes of the checkpoint that `check_version` reads; 0 if its manifest is lost."""
    manifest = _manifest(attestation.statement, blobs)
    if manifest is None:
        return 0
    return sum(blobs.size(digest) or 0 for digest in manifest.digests())


def _signature(attestation: Attestation, trusted_key: str | None) -> Check:
    key = attestation.public_key
    if not attestation.is_genuine:
        return Check("signature", False, f"the statement was not signed by {key}")
    if trusted_key is not None and key != trusted_key:
        return Check("signature", False, f"signed by {key}, not by {trusted_key}")
    unchecked = "" if trusted_key else "; give --key to check whose key this is"
    return Check("signature", True, f"by {key}{unchecked}")


def _manifest(statement: Statement, blobs: BlobStore) -> Manifest | None:
    data = _undamaged(statement.manifest, blobs)
    return None if data is None else Manifest.from_json(data)


def _blobs(manifest: Manifest, blobs: BlobStore, on_bytes: OnBytes) -> Check:
    names = {entry.digest: name for name, entry in manifest.tensors.items()}
    names |= {digest: name for name, digest in manifest.files.items()}
    wrong = [name for digest, name in names.items() if not _is_undamaged(digest, blobs, on_bytes)]
    if wrong:
        first = ", ".join(sorted(wrong)[:MAX_NAMES])
        return Check("tensors", False, f"{len(wrong)} damaged or missing: {first}")
    return Check("tensors", True, f"{len(names)} tensors and files, unchanged")


def _records(statement: Statement, blobs: BlobStore) -> Iterator[Check]:
    """Check that report and provenance are undamaged, and belong to this checkpoint."""
    report = _parsed(GateReport, statement.gate_report, blobs)
    yield _found("gate report", report, statement.gate_report)
    if report is not None:
        yield _linked("report of this checkpoint", report.manifest_digest, statement.manifest)
        yield _gate(report, statement, blobs)
    provenance = _parsed(Provenance, statement.lock, blobs)
    yield _found("provenance", provenance, statement.lock)
    if provenance is not None:
        yield _linked("provenance of this checkpoint", provenance.made, statement.manifest)
        yield _linked("recipe", _recipe_digest(statement.lock, blobs), statement.recipe)


def _gate(report: GateReport, statement: Statement, blobs: BlobStore) -> Check:
    """Check that the gate passed, or that a record overrides exactly its failures."""
    if report.passed:
        return Check("gate", True, "passed")
    failures = "; ".join(map(str, report.failures))
    record = None if statement.override is None else _parsed(Override, statement.override, blobs)
    if (
        record is None
        or record.gate_report != statement.gate_report
        or not record.covers(report.failures)
    ):
        return Check("gate", False, failures)
    return Check("gate", True, f"{failures}; overridden by {record.by}: {record.reason}")


def _found(title: str, content: object, digest: str) -> Check:
    holds = content is not None
    return Check(title, holds, digest if holds else f"{digest} is lost or damaged")


def _linked(title: str, digest: str, expected: str) -> Check:
    holds = digest == expected
    return Check(title, holds, "matches" if holds else f"{digest}, not {expected}")


def _recipe_digest(provenance_digest: str, blobs: BlobStore) -> str:
    """Return the digest of the recipe in a provenance, as it was written.

    A recipe that is parsed and written again would have the fields that were added since.
    """
    return json_digest(json.loads(get_bytes(blobs, provenance_digest))["recipe"])


def _parsed(kind: type[Record], digest: str, blobs: BlobStore) -> Record | None:
    data = _undamaged(digest, blobs)
    try:
        return None if data is None else kind.model_validate_json(data)
    except ValidationError:
        return None


def _undamaged(digest: str, blobs: BlobStore) -> bytes | None:
    """Return the bytes of a blob, or None if they are lost or have another digest."""
    try:
        data = get_bytes(blobs, digest)
    except NotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _is_undamaged(digest: str, blobs: BlobStore, on_bytes: OnBytes) -> bool:
    try:
        return _hashed(blobs.read(digest), on_bytes) == digest
    except NotFound:
        return False


def _folder_manifest(folder: Path, on_bytes: OnBytes) -> Manifest:
    """Return the manifest of the files in a folder, hashed now."""
    path = folder / TENSORS
    tensors = {
        name: TensorEntry(
            span.dtype,
            span.shape,
            _hashed(Source(path, span.start, span.end).chunks(), on_bytes),
        )
        for name, span in read_header(path).items()
    }
    others = {CONFIG, TENSORS, ATTESTATION}
    files = {
        file.name: _hashed(Source.whole(file).chunks(), on_bytes)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in others
    }
    return Manifest(config=read_config(folder), tensors=tensors, files=files)


def _hashed(chunks: Iterable[bytes], on_bytes: OnBytes) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
        on_bytes(len(chunk))
    return sha.hexdigest()
