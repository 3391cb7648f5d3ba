"""`nexusmix gate`: two models from wherever they are, compared in a child that has torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assembler.evaluation.comparison_request import (
    ComparisonRequest,
    DocumentsFile,
    Folder,
    Served,
    Stored,
    Subject,
)
from engine.gates.comparison_gate import DivergenceReport
from registry import blobs
from registry.checkpoint_folder import DOCUMENTS
from registry.errors import InvalidInput, NotFound
from registry.names import parse_ref
from service.client.client import Client
from service.reports import divergence_page
from service.runtime import preparation
from service.runtime.background import connect
from service.terminal import console, divergence_tables


def gate(
    reference: str,
    candidate: str,
    *,
    documents: Path | None,
    policy: dict[str, Any],
    report_path: Path | None,
    html_path: Path | None,
) -> bool:
    """Compare, print, and say whether everything was kept; `policy` has the fields that were given.

    Raises InvalidInput and NotFound for what names no model, StepFailed with the reason where
    nothing could be compared.
    """
    (one, own), (other, others) = find(reference), find(candidate)
    texts = own or others
    if documents is not None:
        texts = [DocumentsFile(domain=documents.stem, path=documents.absolute())]
    if not texts:
        raise InvalidInput("neither of the two brings documents: give --documents FILE")
    request = ComparisonRequest(reference=one, candidate=other, texts=tuple(texts), policy=policy)
    request.read_policy()  # refused here, before a child starts
    with console.notes.status("gate") as status:
        result = preparation.run("gate", request.model_dump_json(), on_progress=status.update)
    report = DivergenceReport.model_validate(result)
    if report_path is not None:
        report_path.write_text(report.model_dump_json(indent=2) + "\n")
    if html_path is not None:
        html_path.write_text(divergence_page.html(report))
    divergence_tables.print_report(report)
    return report.passed


def find(words: str) -> tuple[Subject, Sequence[DocumentsFile]]:
    """What somebody means, with the documents that it brings along.

    `http://HOST:PORT/v1#MODEL` is a server, a path a Hugging Face folder, else it is a mix or an
    expert of the running service; of one name the mix. Raises InvalidInput, NotFound.
    """
    if "://" in words:
        address, _, model = words.partition("#")
        if not model or not address.rstrip("/").endswith("/v1"):
            raise InvalidInput(f"{words!r} names no served model: http://HOST:PORT/v1#MODEL does")
        return Served(address=address.rstrip("/"), model=model), []
    folder = Path(words)
    if folder.is_dir():
        path = folder.absolute()
        brought = path / DOCUMENTS
        texts = [DocumentsFile(domain=path.name, path=brought)] if brought.is_file() else []
        return Folder(path=path), texts
    try:
        parse_ref(words)
    except InvalidInput as error:
        raise InvalidInput(
            f"{words!r} is no folder, no NAME or NAME@NUMBER, and no http://HOST:PORT/v1#MODEL"
        ) from error
    with connect() as client:
        return _registered(client, words)


def _registered(client: Client, ref: str) -> tuple[Stored, list[DocumentsFile]]:
    try:
        mix = client.mix(ref)
    except NotFound:
        version = client.expert_version(ref)
        texts = [_texts(version.expert, version.documents_digest)]
        return Stored(ref=version.ref, manifest_digest=version.manifest_digest), texts
    versions = [client.expert_version(own) for own in mix.recipe["experts"]]
    texts = [_texts(version.expert, version.documents_digest) for version in versions]
    return Stored(ref=mix.ref, manifest_digest=client.files(mix.ref).manifest_digest), texts


def _texts(domain: str, digest: str) -> DocumentsFile:
    return DocumentsFile(domain=domain, path=blobs.store().local_path(digest))
