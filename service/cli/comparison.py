"""Compare two models token by token, wherever they are."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.needs_server import needs_server
from service.cli.options import NAMED, Page, Report
from service.cli.paths import check_new_file, is_path

if TYPE_CHECKING:
    from assembler.evaluation.comparison_request import DocumentsFile, Stored, Subject
    from engine.gates.comparison_gate import DivergenceReport
    from service.client.client import Client
    from service.schemas.experts import VersionBody

app = typer.Typer()
command = partial(app.command, rich_help_panel="Gates")

SERVER_FORM = "http://HOST:PORT/v1#MODEL"


@command()
@needs_server
def gate(
    reference: Annotated[
        str,
        typer.Argument(
            help=f"A Hugging Face folder; a mix or an expert: {NAMED}; or"
            " http://HOST:PORT/v1#MODEL, an OpenAI-compatible server (key: OPENAI_API_KEY)."
        ),
    ],
    candidate: Annotated[
        str, typer.Argument(help="The model to compare with it, written the same way.")
    ],
    documents: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines with id, text and split; the held-out documents are read. Default:"
            " the documents of the reference, or else of the candidate."
        ),
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="Number of prefixes per domain.")] = None,
    prefix_tokens: Annotated[int | None, typer.Option(help="Tokens of each prefix.")] = None,
    completion_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the reference adds to each prefix.")
    ] = None,
    min_equal_share: Annotated[
        float | None,
        typer.Option(help="Smallest share of tokens that both models predict alike."),
    ] = None,
    min_fdt_25: Annotated[
        float | None,
        typer.Option(help="Smallest 25th percentile of the first divergent token."),
    ] = None,
    min_fdt_50: Annotated[
        float | None, typer.Option(help="Smallest median of the first divergent token.")
    ] = None,
    min_fdt_75: Annotated[
        float | None,
        typer.Option(help="Smallest 75th percentile of the first divergent token."),
    ] = None,
    min_whole_share: Annotated[
        float | None,
        typer.Option(help="Smallest share of texts that both models predict alike to their end."),
    ] = None,
    max_sdt: Annotated[
        float | None, typer.Option(help="Largest mean number of divergent tokens per prefix.")
    ] = None,
    max_dppl_ratio: Annotated[
        float | None,
        typer.Option(
            help="Largest ratio of the candidate's perplexity to the reference's, on the"
            " reference's texts."
        ),
    ] = None,
    max_logprob_difference: Annotated[
        float | None,
        typer.Option(help="Largest mean difference of token log-probabilities, in nats."),
    ] = None,
    report: Report = None,
    html: Page = None,
) -> None:
    """Compare two models token by token; ends with 0 only if all given limits are kept."""
    from service.terminal import divergence_tables

    fields = {
        "prompts_per_domain": prompts,
        "prefix_tokens": prefix_tokens,
        "completion_tokens": completion_tokens,
        "min_equal_share": min_equal_share,
        "min_fdt_25": min_fdt_25,
        "min_fdt_50": min_fdt_50,
        "min_fdt_75": min_fdt_75,
        "min_whole_share": min_whole_share,
        "max_sdt": max_sdt,
        "max_dppl_ratio": max_dppl_ratio,
        "max_logprob_difference": max_logprob_difference,
    }
    policy = {field: value for field, value in fields.items() if value is not None}
    check_new_file(report)
    check_new_file(html)
    result = _compare(reference, candidate, documents=documents, policy=policy)
    if report is not None:
        report.write_text(result.model_dump_json(indent=2) + "\n")
    if html is not None:
        from service.reports import divergence_page

        html.write_text(divergence_page.html(result))
    divergence_tables.print_report(result)
    if not result.passed:
        sys.exit(1)


def _compare(
    reference: str, candidate: str, *, documents: Path | None, policy: dict[str, Any]
) -> "DivergenceReport":
    """Run the comparison in a child process that has torch.

    Raises InvalidInput and NotFound for an argument that names no model, StepFailed with the
    reason when nothing could be compared.
    """
    from assembler.evaluation.comparison_request import ComparisonRequest, DocumentsFile
    from engine.gates.comparison_gate import DivergenceReport
    from registry.catalog.document_files import check_file
    from registry.errors import InvalidInput
    from service.runtime import preparation
    from service.terminal.console import working

    reference_model, reference_texts = find_model(reference)
    candidate_model, candidate_texts = find_model(candidate)
    texts = reference_texts or candidate_texts
    if documents is not None:
        check_file(documents)
        texts = [DocumentsFile(domain=documents.stem, path=documents.absolute())]
    if not texts:
        raise InvalidInput("neither model has documents: give --documents FILE")
    request = ComparisonRequest(
        reference=reference_model, candidate=candidate_model, texts=tuple(texts), policy=policy
    )
    request.read_policy()  # refuses a wrong policy before the child starts
    with working("gate") as show:
        result = preparation.run("gate", request.model_dump_json(), on_progress=show)
    return DivergenceReport.model_validate(result)


def find_model(argument: str) -> "tuple[Subject, Sequence[DocumentsFile]]":
    """Return the model that an argument names, and its documents.

    `http://HOST:PORT/v1#MODEL` is a server, a path is a Hugging Face folder. Any other argument is
    a mix or an expert of the running service; a mix comes first if both have the name. Raises
    InvalidInput, NotFound.
    """
    from assembler.evaluation.comparison_request import DocumentsFile, Folder, Served
    from registry.errors import InvalidInput
    from registry.ingest.checkpoint_folder import DOCUMENTS
    from registry.ingest.folder_contents import check_folder
    from registry.names import parse_ref
    from service.client.local import connect

    if "://" in argument:
        address, _, model = argument.partition("#")
        if not model or not address.rstrip("/").endswith("/v1"):
            raise InvalidInput(f"{argument!r} names no served model: write {SERVER_FORM}")
        return Served(address=address.rstrip("/"), model=model), []
    folder = Path(argument)
    if is_path(argument):
        check_folder(folder)
        path = folder.absolute()
        documents = path / DOCUMENTS
        texts = [DocumentsFile(domain=path.name, path=documents)] if documents.is_file() else []
        return Folder(path=path), texts
    try:
        parse_ref(argument)
    except InvalidInput as error:
        raise InvalidInput(
            f"{argument!r} is no folder, no NAME or NAME@NUMBER, and no {SERVER_FORM}"
        ) from error
    with connect() as client:
        return _find_registered(client, argument)


def _find_registered(client: "Client", ref: str) -> "tuple[Stored, list[DocumentsFile]]":
    from assembler.evaluation.comparison_request import Stored
    from registry.errors import NotFound
    from service.terminal.mix_progress import find_mix

    try:
        mix = find_mix(client, ref)
    except NotFound:
        version = client.expert_version(ref)
        texts = _documents([version])
        digest = client.files(version.ref, of="experts").manifest_digest
        return Stored(ref=version.ref, manifest_digest=digest), texts
    versions = [client.expert_version(expert) for expert in mix.recipe["experts"]]
    texts = _documents(versions)
    return Stored(ref=mix.ref, manifest_digest=client.files(mix.ref).manifest_digest), texts


def _documents(versions: "Sequence[VersionBody]") -> "list[DocumentsFile]":
    """Return the documents of each domain as a file in the store of this data folder.

    A domain whose documents are forgotten is left out, which is said.
    """
    from assembler.evaluation.comparison_request import DocumentsFile
    from registry.blobs import blob_stores
    from service.terminal.console import notes

    files = []
    for version in versions:
        if version.documents_forgotten_at is None:
            path = blob_stores.store().local_path(version.documents_digest)
            files.append(DocumentsFile(domain=version.expert, path=path))
        else:
            notes.print(f"{version.ref} keeps no documents: its domain is not compared")
    return files
