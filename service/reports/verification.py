"""Checks a published mix against the statement that the service signed of it.

The statement names by digest the checkpoint, the gate report, the recipe and the provenance. The
checkpoint names its tensors and files; the report and the provenance name the checkpoint again.
Every check hashes the bytes anew.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from assembler.assembly.provenance import Provenance
from assembler.mixes.waivers import Override
from engine.gates.mix_gate import GateReport
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints import attestations
from registry.checkpoints.attestations import Attestation, Statement
from registry.checkpoints.checkpoint_folder import Source
from registry.checkpoints.exports import CONFIG, TENSORS
from registry.checkpoints.manifests import Manifest, TensorEntry, json_digest
from registry.checkpoints.safetensors_header import read_header
from registry.errors import InvalidInput, NotFound

# Of what is damaged or missing this much is named.
MAX_NAMES = 5

OnBytes = Callable[[int], None]
Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Check:
    """One link; `detail` says what was found, and where it does not hold what is wrong."""

    title: str
    holds: bool
    detail: str


def check_version(
    attestation: Attestation, blobs: BlobStore, *, trusted_key: str, on_bytes: OnBytes
) -> list[Check]:
    """The whole chain, in a store that has the blobs."""
    statement = attestation.statement
    checks = [_signature(attestation, trusted_key)]
    manifest = _manifest(statement, blobs)
    checks.append(_found("checkpoint", manifest, statement.manifest))
    if manifest is not None:
        checks.append(_blobs(manifest, blobs, on_bytes))
    return [*checks, *_records(statement, blobs)]


def check_folder(folder: Path, *, trusted_key: str | None, on_bytes: OnBytes) -> list[Check]:
    """A downloaded folder: its signature, and that it holds just the checkpoint that was signed.

    Without a trusted key any will do, and the check tells which it was. Raises InvalidInput when
    the folder has no attestation that can be read, InvalidCheckpoint for a bad header.
    """
    try:
        data = (folder / attestations.FILE).read_bytes()
        attestation = Attestation.model_validate_json(data)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{folder} has no {attestations.FILE}: only a published mix that was exported has one"
        ) from error
    except ValidationError as error:
        raise InvalidInput(f"{folder / attestations.FILE} is not an attestation") from error
    made = _of_files(folder, on_bytes).digest
    expected = attestation.statement.manifest
    return [
        _signature(attestation, trusted_key),
        Check(
            "checkpoint",
            made == expected,
            expected if made == expected else f"the files are {made}, signed was {expected}",
        ),
    ]


def num_bytes(attestation: Attestation, blobs: BlobStore) -> int:
    """What `check_version` will read of the checkpoint; 0 when its manifest is lost or damaged."""
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
    untold = "" if trusted_key else "; whose that is, only --key can hold it against"
    return Check("signature", True, f"by {key}{untold}")


def _manifest(statement: Statement, blobs: BlobStore) -> Manifest | None:
    data = _whole(statement.manifest, blobs)
    return None if data is None else Manifest.from_json(data)


def _blobs(manifest: Manifest, blobs: BlobStore, on_bytes: OnBytes) -> Check:
    names = {entry.digest: name for name, entry in manifest.tensors.items()}
    names |= {digest: name for name, digest in manifest.files.items()}
    wrong = [name for digest, name in names.items() if not _is_whole(digest, blobs, on_bytes)]
    if wrong:
        named = ", ".join(sorted(wrong)[:MAX_NAMES])
        return Check("tensors", False, f"{len(wrong)} damaged or missing: {named}")
    return Check("tensors", True, f"{len(names)} tensors and files, as they were")


def _records(statement: Statement, blobs: BlobStore) -> Iterator[Check]:
    """Of report and provenance: whole, and of this very checkpoint."""
    report = _parsed(GateReport, statement.gate_report, blobs)
    yield _found("gate report", report, statement.gate_report)
    if report is not None:
        yield _linked("gated", report.manifest_digest, statement.manifest)
        yield _gate(report, statement, blobs)
    provenance = _parsed(Provenance, statement.lock, blobs)
    yield _found("provenance", provenance, statement.lock)
    if provenance is not None:
        yield _linked("locked", provenance.made, statement.manifest)
        yield _linked("recipe", _recipe_digest(statement.lock, blobs), statement.recipe)


def _gate(report: GateReport, statement: Statement, blobs: BlobStore) -> Check:
    """Passed, or overridden on record, for just its failures."""
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
    return Check(title, holds, "just this" if holds else f"{digest}, not {expected}")


def _recipe_digest(provenance_digest: str, blobs: BlobStore) -> str:
    """Of the recipe as it stands in a provenance: what recipes can say since is no part of it."""
    return json_digest(json.loads(get_bytes(blobs, provenance_digest))["recipe"])


def _parsed(kind: type[Record], digest: str, blobs: BlobStore) -> Record | None:
    data = _whole(digest, blobs)
    try:
        return None if data is None else kind.model_validate_json(data)
    except ValidationError:
        return None


def _whole(digest: str, blobs: BlobStore) -> bytes | None:
    """The bytes, if they still have their digest."""
    try:
        data = get_bytes(blobs, digest)
    except NotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None


def _is_whole(digest: str, blobs: BlobStore, on_bytes: OnBytes) -> bool:
    try:
        return _hashed(blobs.read(digest), on_bytes) == digest
    except NotFound:
        return False


def _of_files(folder: Path, on_bytes: OnBytes) -> Manifest:
    """The manifest of what is really in a folder."""
    path = folder / TENSORS
    tensors = {
        name: TensorEntry(
            span.dtype,
            span.shape,
            _hashed(Source(path, span.start, span.end).chunks(), on_bytes),
        )
        for name, span in read_header(path).items()
    }
    others = {CONFIG, TENSORS, attestations.FILE}
    files = {
        file.name: _hashed(Source.whole(file).chunks(), on_bytes)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in others
    }
    config = json.loads((folder / CONFIG).read_text())
    return Manifest(config=config, tensors=tensors, files=files)


def _hashed(chunks: Iterable[bytes], on_bytes: OnBytes) -> str:
    sha = hashlib.sha256()
    for chunk in chunks:
        sha.update(chunk)
        on_bytes(len(chunk))
    return sha.hexdigest()
