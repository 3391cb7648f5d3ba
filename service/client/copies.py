"""The part of the client that registers what another service has: it moves what this one lacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.catalog import document_files
from registry.checkpoints.file_names import TENSORS
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_header import LENGTH_BYTES
from registry.checkpoints.safetensors_view import SafetensorsView
from registry.ingest.sources import Sendable, Source
from service.client import transfers
from service.client.connection import Connection
from service.client.transfers import OnTransfer
from service.client.uploads import check_expert
from service.schemas.checkpoints import FilesBody
from service.schemas.experts import ManifestBody, VersionBody, VersionUploadBody


@dataclass(frozen=True)
class RemoteBytes:
    """The bytes of a blob in a file of another service: from `start` to before `end`."""

    connection: Connection
    path: str
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Number of bytes that are sent."""
        return self.end - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes that are sent, in chunks. Raises Unavailable."""
        return self.connection.read(self.path, start=self.start, end=self.end)


class Copies:
    """What a client does with the experts of another service."""

    _connection: Connection

    def copy_expert(
        self,
        version: VersionBody,
        *,
        there: "Copies",
        address: str,
        name: str,
        family: str,
        license: str,
        documents: Path,
        description: str = "",
        private_documents: bool = False,
        forget_documents: bool = False,
        on_transfer: OnTransfer = transfers.ignore,
    ) -> VersionBody:
        """Register a version that another service has, with documents that show its domain.

        `there` is a client of the other service, which gives out no documents, and `address` names
        the version to readers. Only what this service lacks passes through this computer. A family
        must have the same seed on both sides. What the owner kept aside stays there. Call it again
        after an interruption. Raises Conflict for a version that was not checked there, and
        Incompatible for one that does not fit the family.
        """
        check_expert(name, family=family, license=license, documents=documents)
        path = f"/experts/{version.expert}/versions/{version.version}"
        body = ManifestBody.model_validate(there._connection.get(f"{path}/manifest"))
        sources = _remote(there._connection, f"{path}/files", body.manifest())
        about: dict[str, Any] = {
            "family": family,
            "license": license,
            "description": description,
            "private_documents": private_documents,
            "forget_documents": forget_documents,
            "notes": {"origin": {"address": address, "digest": body.manifest_digest}},
        }
        with document_files.as_json_lines(documents) as json_lines:
            sample = Source.whole(json_lines)
            sources[sample.digest()] = sample
            about |= _announcement(body.manifest()) | {"documents": sample.digest()}
            begun = self._connection.post(f"/experts/{name}/versions", about)
            upload = VersionUploadBody.model_validate(begun)
            transfers.send_blobs(self._connection, upload.missing, sources, on_transfer=on_transfer)
        completed = self._connection.post(f"/experts/{name}/versions/{upload.version}/complete")
        return VersionBody.model_validate(completed)


def _announcement(manifest: Manifest) -> dict[str, Any]:
    """Return the fields of a request that describe a checkpoint as one file of tensors."""
    view = SafetensorsView(manifest)
    header = view.header[LENGTH_BYTES:].decode()
    return {
        "config": manifest.config,
        "files": manifest.files,
        "shards": [{"file": TENSORS, "size": view.size, "header": header}],
        "digests": {name: entry.digest for name, entry in manifest.tensors.items()},
    }


def _remote(connection: Connection, path: str, manifest: Manifest) -> dict[str, Sendable]:
    """Return where each blob of a checkpoint lies in the files at `path`, by its digest."""
    listed = FilesBody.model_validate(connection.get(path)).data
    sizes = {file.name: file.size for file in listed}
    found: dict[str, Sendable] = {
        digest: RemoteBytes(connection, f"{path}/{name}", 0, sizes[name])
        for name, digest in manifest.files.items()
        if name in sizes
    }
    view = SafetensorsView(manifest)
    reached = len(view.header)
    for entry in view.entries:
        end = reached + entry.num_bytes
        found[entry.digest] = RemoteBytes(connection, f"{path}/{TENSORS}", reached, end)
        reached = end
    return found
