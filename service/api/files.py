"""Checkpoints of seeds, experts and mixes as Hugging Face files to download."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from assembler.mixes import mixes, retention
from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts, experts, families
from registry.checkpoints import manifests
from registry.checkpoints.exports import config_json, file_sizes, small_files, tensor_files
from registry.checkpoints.file_names import ADAPTER_CONFIG, ADAPTER_TENSORS, CONFIG
from registry.checkpoints.manifests import Manifest
from registry.database.tables import VersionState
from registry.errors import Conflict, NotFound
from registry.imports.sources import Source
from service.schemas.checkpoints import FileBody, FilesBody
from service.schemas.common import Line
from service.schemas.experts import ManifestBody
from service.web.auth import Reader
from service.web.checked_routes import CheckedRoute
from service.web.deps import Blobs, ExpertName, FamilyName, MixName, Session, VersionNumber

router = APIRouter(tags=["files"], route_class=CheckedRoute)

# Twenty digits count all bytes that exist; a longer number is no range.
RANGE = re.compile(r"bytes=([0-9]{0,20})-([0-9]{0,20})")

Read = Callable[[int, int], Iterator[bytes]]


class FileResponse(StreamingResponse):
    """The bytes of a file, or of one range of it."""

    media_type = "application/octet-stream"


_BYTES: dict[str, Any] = {
    FileResponse.media_type: {"schema": {"type": "string", "format": "binary"}}
}
# What a route that answers with a file documents.
AS_FILE: dict[str, Any] = {
    "response_class": FileResponse,
    "responses": {
        200: {"description": "The whole file.", "content": _BYTES},
        206: {"description": "The range that was asked for.", "content": _BYTES},
        304: {"description": "`If-None-Match` names this file: it has not changed."},
        416: {"description": "The file has no such range."},
    },
}
FileName = Annotated[Line, Path(description="Name of the file, as the list of files has it.")]


@router.get("/experts/{name}/versions/{number}/files")
def list_of_expert(
    name: ExpertName, number: VersionNumber, session: Session, blobs: Blobs, _: Reader
) -> FilesBody:
    """List the files of a version; together they are a Hugging Face folder."""
    return _listing(_of_expert(session, blobs, name, number), None, blobs)


@router.get("/families/{name}/files")
def list_of_family(name: FamilyName, session: Session, blobs: Blobs, _: Reader) -> FilesBody:
    """List the files of a family's seed; together they are a Hugging Face folder."""
    return _listing(_of_family(session, blobs, name), None, blobs)


@router.get("/mixes/{name}/versions/{number}/files")
def list_of_mix(
    name: MixName, number: VersionNumber, session: Session, blobs: Blobs, _: Reader
) -> FilesBody:
    """List the files of a version whose gate passed. Those of a refused version can be downloaded
    without a signature, as long as it is kept."""
    return _listing(*_of_mix(session, blobs, name, number), blobs)


@router.get("/experts/{name}/versions/{number}/files/{file}", **AS_FILE)
@router.head("/experts/{name}/versions/{number}/files/{file}", include_in_schema=False)
def get_of_expert(
    name: ExpertName,
    number: VersionNumber,
    file: FileName,
    request: Request,
    session: Session,
    blobs: Blobs,
    _: Reader,
) -> Response:
    """Return a file of an expert, or one range of it."""
    return _file(request, blobs, _of_expert(session, blobs, name, number), None, file)


@router.get("/families/{name}/files/{file}", **AS_FILE)
@router.head("/families/{name}/files/{file}", include_in_schema=False)
def get_of_family(
    name: FamilyName,
    file: FileName,
    request: Request,
    session: Session,
    blobs: Blobs,
    _: Reader,
) -> Response:
    """Return a file of a family's seed, or one range of it."""
    return _file(request, blobs, _of_family(session, blobs, name), None, file)


@router.get("/mixes/{name}/versions/{number}/files/{file}", **AS_FILE)
@router.head("/mixes/{name}/versions/{number}/files/{file}", include_in_schema=False)
def get_of_mix(
    name: MixName,
    number: VersionNumber,
    file: FileName,
    request: Request,
    session: Session,
    blobs: Blobs,
    _: Reader,
) -> Response:
    """Return a file of a mix, or one range of it."""
    return _file(request, blobs, *_of_mix(session, blobs, name, number), file)


@router.get("/experts/{name}/versions/{number}/manifest")
def get_manifest(
    name: ExpertName, number: VersionNumber, session: Session, blobs: Blobs, _: Reader
) -> ManifestBody:
    """Return what the checkpoint of a version consists of: config, dtypes, shapes and digests. Its
    tensors lie in `model.safetensors` of its files."""
    return ManifestBody.of(_of_expert(session, blobs, name, number))


@router.get("/experts/{name}/versions/{number}/adapter")
def list_of_adapter(
    name: ExpertName, number: VersionNumber, session: Session, blobs: Blobs, _: Reader
) -> FilesBody:
    """List the files of the adapter that a version was merged from, as its owner sent them."""
    manifest = _of_expert(session, blobs, name, number)
    source = _adapter(session, name, number)
    config, others = _adapter_config(source), _adapter_files(source)
    return FilesBody(
        manifest_digest=manifest.digest,
        attestation_digest=None,
        data=[
            FileBody(name=ADAPTER_CONFIG, size=len(config), digest=_sha256(config)),
            *(
                FileBody(name=name, size=blobs.size(digest) or 0, digest=digest)
                for name, digest in others.items()
            ),
        ],
    )


@router.get("/experts/{name}/versions/{number}/adapter/{file}", **AS_FILE)
def get_of_adapter(
    name: ExpertName,
    number: VersionNumber,
    file: FileName,
    request: Request,
    session: Session,
    blobs: Blobs,
    _: Reader,
) -> Response:
    """Return a file of the adapter that a version was merged from, or one range of it."""
    _of_expert(session, blobs, name, number)
    source = _adapter(session, name, number)
    if file == ADAPTER_CONFIG:
        return _bytes(request, _adapter_config(source))
    others = _adapter_files(source)
    if file not in others:
        raise NotFound(f"no file {file[:100]!r}; there are {', '.join([ADAPTER_CONFIG, *others])}")
    return _blob(request, blobs, others[file])


def _adapter(session: Session, name: str, number: int) -> Source:
    version = experts.find_version(session, expert=name, number=number)
    if version.source is None or version.source["kind"] != "adapter":
        raise NotFound(f"{experts.ref_of(version)} was registered without an adapter")
    return Source.from_json(version.source)


def _adapter_config(source: Source) -> bytes:
    # As peft writes it: the database keeps its fields in an order of its own.
    return json.dumps(source.config, indent=2, sort_keys=True).encode()


def _adapter_files(source: Source) -> dict[str, str]:
    """Return the digests by name of all files but the config."""
    return {ADAPTER_TENSORS: source.digest} | dict(source.files)


def _of_expert(session: Session, blobs: BlobStore, name: str, number: int) -> Manifest:
    version = experts.find_version(session, expert=name, number=number)
    # Before its check, a version names digests whose bytes nobody may have sent.
    checked = version.state in (VersionState.EMBEDDING, VersionState.READY)
    if not checked and version.ready_at is None:
        raise Conflict(f"{experts.ref_of(version)} is {version.state}: its files were not checked")
    return manifests.load(blobs, experts.checkpoint_digest(version))


def _of_family(session: Session, blobs: BlobStore, name: str) -> Manifest:
    return manifests.load(blobs, families.find_ready(session, name).seed_digest)


def _of_mix(
    session: Session, blobs: BlobStore, name: str, number: int
) -> tuple[Manifest, str | None]:
    """Return the manifest of a mix and the digest of its attestation; a refused mix has none.

    Raises NotFound and Conflict.
    """
    version = mixes.get(session, f"{name}@{number}")
    digest = version.candidate_digest
    if digest is not None and retention.is_kept(version):
        return manifests.load(blobs, digest), None
    if digest is None or version.artifact_id is None:
        raise Conflict(
            f"mix {name}@{number} is {version.state}; a mix can be downloaded when its gate passed,"
            " and for a limited time when its gate refused it"
        )
    artifact = artifacts.get(session, version.artifact_id)
    return manifests.load(blobs, digest), artifact.attestation_digest


def _listing(manifest: Manifest, attestation_digest: str | None, blobs: BlobStore) -> FilesBody:
    sizes = file_sizes(manifest, blobs, attestation_digest=attestation_digest)
    digests = small_files(manifest, attestation_digest) | {CONFIG: _sha256(config_json(manifest))}
    return FilesBody(
        manifest_digest=manifest.digest,
        attestation_digest=attestation_digest,
        data=[
            FileBody(name=name, size=size, digest=digests.get(name)) for name, size in sizes.items()
        ],
    )


def _file(
    request: Request,
    blobs: BlobStore,
    manifest: Manifest,
    attestation_digest: str | None,
    file: str,
) -> Response:
    # Only names in the manifest are looked up, so a name cannot lead to another path.
    if file == CONFIG:
        return _bytes(request, config_json(manifest))
    tensors = tensor_files(manifest)
    if view := tensors.get(file):
        return _ranged(
            request,
            lambda start, end: view.read(blobs, start=start, end=end),
            size=view.size,
            etag=manifest.digest,
        )
    others = small_files(manifest, attestation_digest)
    digest = others.get(file)
    if digest is None:
        known = sorted([CONFIG, *tensors, *others])
        raise NotFound(f"no file {file[:100]!r}; there are {', '.join(known)}")
    return _blob(request, blobs, digest)


def _bytes(request: Request, data: bytes) -> Response:
    return _ranged(
        request,
        lambda start, end: iter([data[start:end]]),
        size=len(data),
        etag=_sha256(data),
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(request: Request, blobs: BlobStore, digest: str) -> Response:
    return _ranged(
        request,
        lambda start, end: blobs.read(digest, start=start, end=end),
        size=blobs.size(digest) or 0,
        etag=digest,
    )


def _ranged(request: Request, read: Read, *, size: int, etag: str) -> Response:
    """Answer with the whole file or one range of it (RFC 9110, section 14).

    A request for several ranges gets the whole file.
    """
    headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    start, end, status = 0, size, 200
    requested = RANGE.fullmatch(request.headers.get("range", ""))
    if (
        requested
        and any(requested.groups())
        and request.headers.get("if-range") in (None, headers["ETag"])
    ):
        start, end = _span(*requested.groups(), size=size)
        if start >= end:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = 206
    headers["Content-Length"] = str(end - start)
    chunks = iter(()) if request.method == "HEAD" else read(start, end)
    return FileResponse(chunks, status_code=status, headers=headers)


def _span(first: str, last: str, *, size: int) -> tuple[int, int]:
    """Return the range as start and end, end excluded; an empty `first` means the last bytes."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1 if last else size)
