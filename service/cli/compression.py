"""Make a mix, an expert or a folder smaller."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.needs_server import needs_server
from service.cli.options import NAMED, IsExpert
from service.cli.paths import check_new_folder, is_path

if TYPE_CHECKING:
    from engine.compression.int8_curve import Compression
    from engine.compression.sparsity_curve import Sparsification

app = typer.Typer()
command = partial(app.command, rich_help_panel="Mixes")


@command()
@needs_server
def compress(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MIX_OR_FOLDER",
            help=f"A mix, or with --expert an expert: {NAMED}; or the folder of a dense model.",
        ),
    ],
    min_fdt_75: Annotated[
        float | None,
        typer.Option(
            help="At least three of four texts must stay the same up to this token (75th percentile"
            " of the first divergent token)."
        ),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Zeros instead of int8: the share of zeros among all weights of attention and"
            " FFNs, or less if --min-fdt-75 requires it."
        ),
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="Largest size of all tensors together.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Hardware for int8: cpu, cpu-vnni (with int8 instructions) or gpu."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="What the search ranks by: fdt or dppl; for int8 also perplexity, or order (from"
            " the first layer to the last); for zeros also uniform (the same share everywhere)."
        ),
    ] = "fdt",
    beam_width: Annotated[
        int | None, typer.Option(help="Candidates that each round keeps. Default: 1.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds from no int8 unit to all of them. Default: 8.")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="How much each round raises the share of zeros. Default: 0.1."),
    ] = None,
    retrain_tokens: Annotated[
        int | None,
        typer.Option(help="Training tokens that the remaining weights read after each round."),
    ] = None,
    keep_zeros: Annotated[
        bool,
        typer.Option(
            "--keep-zeros",
            help="Keep columns of attention and FFN that are all zero. Stock vLLM and transformers"
            " cannot load a Llama without them.",
        ),
    ] = False,
    prompts: Annotated[
        int | None, typer.Option(help="Held-out prefixes to compare on. Default: 16.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines with id, text and split. Default: documents.jsonl in the folder."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="New folder for the result. Stock vLLM loads it if it is dense."),
    ] = None,
    expert: IsExpert = False,
) -> None:
    """Make linear layers int8, or with --sparsity set their smallest weights to zero.

    The search stops at the first divergent token or at the size that the options ask for.
    It prints its curve; * marks the point that was written. The store keeps zeros compactly, a
    folder keeps them as numbers.
    """
    fields = {
        "min_fdt_75": min_fdt_75,
        "sparsity": sparsity,
        "max_bytes": max_bytes,
        "target": target,
        "by": by,
        "beam_width": beam_width,
        "rounds": rounds,
        "step": step,
        "retrain_tokens": retrain_tokens,
        "keep_zeros": keep_zeros or None,
        "prompts": prompts,
    }
    run(source, fields, documents=documents, output=output, is_expert=expert)


def run(
    source: str,
    fields: Mapping[str, Any],
    *,
    documents: Path | None,
    output: Path | None,
    is_expert: bool,
) -> None:
    """Search, write the chosen point, and print the curve.

    `source` is a Hugging Face folder, or the name of a mix or an expert. Raises InvalidInput for a
    wrong request or folder, Conflict when `output` exists, StepFailed with the message of the child
    process.
    """
    request = read_request(fields)
    if output is not None:
        check_new_folder(output)
    folder = Path(source)
    if is_path(source) and not is_expert:
        _compress_folder(folder, request, documents=documents, output=output)
    else:
        _compress_stored(source, request, output=output, is_expert=is_expert)


def read_request(fields: Mapping[str, Any]) -> "Compression | Sparsification":
    """Return the request that `fields` make; None is a field that was not given.

    With `sparsity`, the share of zeros, it is a request for zeros, and for int8 without it. Raises
    InvalidInput.
    """
    from pydantic import ValidationError

    from engine.compression.int8_curve import Compression
    from engine.compression.sparsity_curve import Sparsification
    from registry.errors import InvalidInput, Problem, pointer

    given = {name: value for name, value in fields.items() if value is not None}
    share = given.pop("sparsity", None)
    try:
        if share is None:
            return Compression.model_validate(given)
        return Sparsification.model_validate(given | {"share": share})
    except ValidationError as error:
        problems = tuple(Problem(pointer(*e["loc"]), e["msg"]) for e in error.errors())
        raise InvalidInput("these options do not make a compression", problems=problems) from error


def _compress_folder(
    folder: Path,
    request: "Compression | Sparsification",
    *,
    documents: Path | None,
    output: Path | None,
) -> None:
    from registry.catalog.document_files import check_file
    from registry.errors import InvalidInput
    from registry.ingest.checkpoint_folder import DOCUMENTS, check_headers
    from service.quantities import size
    from service.runtime import preparation
    from service.terminal.console import console, working

    check_headers(folder)
    if output is None:
        raise InvalidInput("--output is missing: name a new folder for the result")
    documents = documents or folder / DOCUMENTS
    if not documents.is_file():
        raise InvalidInput(f"there is no file {documents}: name one with --documents")
    check_file(documents)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    paths = [str(path.absolute()) for path in (folder, documents, output)]
    with working(str(folder)) as show:
        result = preparation.run(
            f"{_task(request)}-folder",
            *paths,
            request.model_dump_json(),
            on_progress=show,
        )
    _print_curve(result, request)
    console.print(f"{output}: {size(result['chosen']['num_bytes'])}")


def _compress_stored(
    ref: str, request: "Compression | Sparsification", *, output: Path | None, is_expert: bool
) -> None:
    """Write the result to the store of the service, and to `output` if given."""
    import json

    from assembler.recipes.recipe import Recipe
    from registry.blobs import blob_stores
    from registry.checkpoints import exports, manifests
    from registry.errors import InvalidInput
    from service.client.local import connect
    from service.quantities import size
    from service.runtime import preparation
    from service.terminal.console import console, copying, working
    from service.terminal.mix_progress import find_mix

    with connect() as client:
        if is_expert:
            version = client.expert_version(ref)
            digest = client.files(version.ref, of="experts").manifest_digest
            versions = [version]
        else:
            mix = find_mix(client, ref)
            digest = client.files(mix.ref).manifest_digest
            experts = Recipe.model_validate(mix.recipe).experts
            versions = [client.expert_version(expert) for expert in experts]
    kept = [version for version in versions if version.documents_forgotten_at is None]
    if not kept:
        raise InvalidInput(f"{ref} keeps no documents to choose a compression by")
    with working(ref) as show:
        result = preparation.run(
            _task(request),
            digest,
            json.dumps([version.documents_digest for version in kept]),
            request.model_dump_json(),
            on_progress=show,
        )
    _print_curve(result, request)
    compressed_digest = result["manifest_digest"]
    if output is not None:
        store = blob_stores.store()
        manifest = manifests.load(store, compressed_digest)
        with copying(ref, num_bytes=manifest.num_bytes) as on_bytes:
            exports.export(manifest, store, output, on_bytes=on_bytes)
    console.print(f"manifest {compressed_digest}: {size(result['chosen']['num_bytes'])}")


def _task(request: "Compression | Sparsification") -> str:
    """Return the name of the task in `assembler.jobs.offline_tasks`."""
    from engine.compression.sparsity_curve import Sparsification

    return "sparsify" if isinstance(request, Sparsification) else "compress"


def _print_curve(result: Mapping[str, Any], request: "Compression | Sparsification") -> None:
    from engine.compression.int8_curve import Curve
    from engine.compression.sparsity_curve import SparsePoint, Sparsification, SparsityCurve
    from service.terminal.compression_tables import print_curve, print_sparsity_curve

    if isinstance(request, Sparsification):
        chosen = SparsePoint.model_validate(result["chosen"])
        print_sparsity_curve(SparsityCurve.model_validate(result["curve"]), chosen=chosen)
    else:
        print_curve(Curve.model_validate(result["curve"]))
