"""The part of the client that registers checkpoints: announces them, and sends what is missing."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from registry import licenses
from registry.catalog import document_files
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Origin
from registry.errors import InvalidInput
from registry.ingest import header_checks, own_imports
from registry.ingest.checkpoint_folder import DOCUMENTS, CheckpointFolder, check_headers
from registry.ingest.fitting import Seed
from registry.ingest.folder_contents import check_folder
from registry.ingest.sources import Sendable, Source
from registry.names import check_name
from service.client import transfers
from service.client.connection import Connection
from service.client.transfers import OnTransfer
from service.schemas.experts import VersionBody, VersionUploadBody
from service.schemas.families import FamilyBody, FamilyUploadBody, SeedBody


class Uploads:
    """What a client does to register families and experts."""

    _connection: Connection

    def register_family(
        self,
        folder: Path,
        *,
        name: str,
        license: str,
        description: str = "",
        origin: Origin | None = None,
        on_transfer: OnTransfer = transfers.ignore,
    ) -> FamilyBody:
        """Register a family by its seed: send the headers, then the bytes that are missing.

        A worker then checks the seed; see `wait_for_family`. Until an expert uses the family,
        another seed replaces the first. `origin` says where the folder was fetched from.
        """
        check_family(name, license=license)
        check_headers(folder)
        checkpoint = CheckpointFolder.read(folder)
        about = {"name": name, "license": license, "description": description}
        announcement = _with_origin(checkpoint.announcement, origin)
        begun = self._connection.post("/families", announcement | about)
        upload = FamilyUploadBody.model_validate(begun)
        transfers.send_blobs(
            self._connection, upload.missing, checkpoint.sources, on_transfer=on_transfer
        )
        return FamilyBody.model_validate(self._connection.post(f"/families/{name}/complete"))

    def check_expert(
        self, name: str, *, family: str, license: str, documents: Path | None = None
    ) -> None:
        """Check what an expert is registered with, before its checkpoint is there.

        Raises InvalidInput, and NotFound for the family.
        """
        check_expert(name, family=family, license=license, documents=documents)
        self._connection.get(f"/families/{family}")

    def check_source(self, path: Path, *, family: str, documents: Path | None = None) -> None:
        """Check what an expert is registered from by its headers, before its weights are there.

        `path` is a folder or a GGUF file; without `documents`, the folder must have them. Raises
        InvalidInput, InvalidCheckpoint and Incompatible with every problem.
        """
        if documents is None:
            document_files.check_expert_file(path / DOCUMENTS)
        header_checks.check(path, self._seed(family))

    def register_expert(
        self,
        folder: Path,
        *,
        name: str,
        family: str,
        license: str,
        description: str = "",
        documents: Path | None = None,
        private_documents: bool = False,
        forget_documents: bool = False,
        origin: Origin | None = None,
        on_transfer: OnTransfer = transfers.ignore,
    ) -> VersionBody:
        """Register a version of an expert, with documents that show its domain.

        A folder that holds an adapter, and a GGUF file, are imported: a worker merges the one into
        the family's seed, and dequantizes the other. No report quotes private documents, and no
        projection learns from them. `forget_documents` also deletes them once the domain is
        embedded. `origin` says where the folder was fetched from.

        `documents` is a file of JSON Lines (`.jsonl`), or a plain text, which is cut into
        documents; without it, `documents.jsonl` in the folder is read. The folder is not changed.
        A worker then checks the version and embeds its domain; see `wait_for_embedding`. The same
        checkpoint and documents find the same version again, and try one that failed again. Tensors
        are sent in the dtypes of the seed; `notes` of the version say what was changed. Raises
        InvalidInput when documents are missing or too few, or the folder holds no checkpoint, and
        Incompatible when it does not fit the seed.
        """
        check_expert(name, family=family, license=license, documents=documents)
        imported = own_imports.read(folder)
        if imported is None:
            check_folder(folder)
        if documents is None and not (folder / DOCUMENTS).exists():
            raise InvalidInput(f"{folder} has no {DOCUMENTS}; name a file of documents, or a text")
        if documents is None:
            document_files.check_expert_file(folder / DOCUMENTS)
        seed = None if imported else self._seed(family)
        if seed is not None:
            check_headers(folder, seed=seed)
        about: dict[str, Any] = {
            "family": family,
            "license": license,
            "description": description,
            "private_documents": private_documents,
            "forget_documents": forget_documents,
        }
        with document_files.as_json_lines(documents or folder / DOCUMENTS) as json_lines:
            if imported is None:
                checkpoint = CheckpointFolder.read(folder, documents=json_lines, seed=seed)
                about |= _with_origin(checkpoint.announcement, origin)
                about |= {"documents": checkpoint.documents}
                begun = self._connection.post(f"/experts/{name}/versions", about)
                sources: Mapping[str, Sendable] = checkpoint.sources
            else:
                sample = Source.whole(json_lines)
                digest = sample.digest()
                about |= imported.announcement | {"documents": digest}
                about |= {} if origin is None else {"origin": origin.to_json()}
                begun = self._connection.post(f"/experts/{name}/imports", about)
                sources = imported.sources | {digest: sample}
            upload = VersionUploadBody.model_validate(begun)
            transfers.send_blobs(self._connection, upload.missing, sources, on_transfer=on_transfer)
        completed = self._connection.post(f"/experts/{name}/versions/{upload.version}/complete")
        return VersionBody.model_validate(completed)

    def _seed(self, family: str) -> Seed:
        """Return what a checkpoint must know to fit a family."""
        path = f"/families/{family}"
        body = SeedBody.model_validate(self._connection.get(f"{path}/seed"))
        return Seed(
            manifest=body.manifest(),
            read_tokenizer=cache(lambda: self._connection.get_bytes(f"{path}/files/{TOKENIZER}")),
        )


def check_family(name: str, *, license: str) -> None:
    """Check what a family is registered with, before its seed is there. Raises InvalidInput."""
    check_name(name, at="/name")
    licenses.check(license, at="/license")


def check_expert(name: str, *, family: str, license: str, documents: Path | None) -> None:
    """Check what an expert is registered with, without the service. Raises InvalidInput."""
    check_name(name, at="/name")
    check_name(family, at="/family")
    licenses.check(license, at="/license")
    if documents is not None:
        document_files.check_expert_file(documents)


def _with_origin(announcement: Mapping[str, Any], origin: Origin | None) -> dict[str, Any]:
    """Return an announced checkpoint whose notes say where it is from."""
    if origin is None:
        return dict(announcement)
    notes = {**announcement.get("notes", {}), "origin": origin.to_json()}
    return {**announcement, "notes": notes}
