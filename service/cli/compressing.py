"""`nexusmix compress`: int8 or zeros, of a folder on this disk or of what the service has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assembler.recipes.recipe import Recipe
from engine.compression.int8_curve import Compression, Curve
from engine.compression.measures import Measures
from engine.compression.sparsity_curve import SparsePoint, Sparsification, SparsityCurve
from registry import blobs, exports, manifests
from registry.checkpoint_folder import DOCUMENTS
from registry.errors import Conflict, InvalidInput, Problem, pointer
from service.quantities import size
from service.runtime import preparation
from service.runtime.background import connect
from service.terminal import console

MEASURES = ("FDT 75", "FDT", "DPPL", "perplexity")


def compress(
    source: str,
    fields: Mapping[str, Any],
    *,
    documents: Path | None,
    output: Path | None,
    is_expert: bool,
) -> None:
    """Search, write what was chosen, and print the curve.

    `source` is a Hugging Face folder, or names a mix, or an expert. Raises InvalidInput for a
    request that cannot be meant, Conflict when `output` exists, StepFailed with the child's words.
    """
    request = read(fields)
    if output is not None and output.exists():
        raise Conflict(f"{output} exists already")
    folder = Path(source)
    if folder.is_dir():
        _compress_folder(folder, request, documents=documents, output=output)
    else:
        _compress_stored(source, request, output=output, is_expert=is_expert)


def read(fields: Mapping[str, Any]) -> Compression | Sparsification:
    """The request of these fields; those that are None are not said. With `sparsity`, the share of
    zeros, it asks for those in place of int8. Raises InvalidInput."""
    said = {name: value for name, value in fields.items() if value is not None}
    share = said.pop("sparsity", None)
    try:
        if share is None:
            return Compression.model_validate(said)
        return Sparsification.model_validate(said | {"share": share})
    except ValidationError as error:
        problems = tuple(Problem(pointer(*e["loc"]), e["msg"]) for e in error.errors())
        raise InvalidInput("this cannot be asked of a compression", problems=problems) from error


def _compress_folder(
    folder: Path,
    request: Compression | Sparsification,
    *,
    documents: Path | None,
    output: Path | None,
) -> None:
    if output is None:
        raise InvalidInput("--output is missing: where the compressed folder is to be")
    documents = documents or folder / DOCUMENTS
    if not documents.is_file():
        raise InvalidInput(f"there is no {documents}: name a file with --documents")
    paths = [str(path.absolute()) for path in (folder, documents, output)]
    with console.notes.status(str(folder)) as status:
        made = preparation.run(
            f"{_command(request)}-folder",
            *paths,
            request.model_dump_json(),
            on_progress=status.update,
        )
    _show(made, request)
    console.console.print(f"{output}: {size(made['chosen']['num_bytes'])}")


def _compress_stored(
    ref: str, request: Compression | Sparsification, *, output: Path | None, is_expert: bool
) -> None:
    """Into the store of the service, and from there into `output` if one is given."""
    with connect() as client:
        if is_expert:
            version = client.expert_version(ref)
            digest, documents = version.manifest_digest, [version.documents_digest]
        else:
            digest = client.files(ref).manifest_digest
            experts = Recipe.model_validate(client.mix(ref).recipe).experts
            documents = [client.expert_version(expert).documents_digest for expert in experts]
    with console.notes.status(ref) as status:
        made = preparation.run(
            _command(request),
            digest,
            json.dumps(documents),
            request.model_dump_json(),
            on_progress=status.update,
        )
    _show(made, request)
    if output is not None:
        store = blobs.store()
        manifest = manifests.load(store, made["manifest_digest"])
        with console.copying(ref, num_bytes=manifest.num_bytes) as on_bytes:
            exports.export(manifest, store, output, on_bytes=on_bytes)
    console.console.print(
        f"manifest {made['manifest_digest']}: {size(made['chosen']['num_bytes'])}"
    )


def _command(request: Compression | Sparsification) -> str:
    """Of `assembler.jobs.offline_tasks`."""
    return "sparsify" if isinstance(request, Sparsification) else "compress"


def _show(made: dict[str, Any], request: Compression | Sparsification) -> None:
    if isinstance(request, Sparsification):
        _show_sparse(made)
        return
    show_curve(Curve.model_validate(made["curve"]))


def show_curve(curve: Curve) -> None:
    """One line for each point, the chosen one marked; the first is the noise floor."""
    chosen = curve.chosen
    titles = ("", "units", "int8", "size", *MEASURES)
    rows = [
        (
            "*" if point == chosen else "",
            str(len(point.units)),
            f"{point.int8_share:.0%}",
            size(point.num_bytes),
            *_measured(point),
        )
        for point in curve.points
    ]
    console.print_rows(titles, rows)


def _show_sparse(made: dict[str, Any]) -> None:
    curve = SparsityCurve.model_validate(made["curve"])
    chosen = SparsePoint.model_validate(made["chosen"])
    titles = ("", "zeros", "from 90 %", "size", *MEASURES)
    rows = [
        (
            "*" if point == chosen else "",
            f"{point.share:.0%}",
            str(sum(share >= 0.9 for share in point.shares.values())),
            size(point.num_bytes),
            *_measured(point),
        )
        for point in curve.points
    ]
    console.print_rows(titles, rows)


def _measured(point: Measures) -> tuple[str, ...]:
    return (
        f"{point.fdt_75:.1f}",
        f"{point.fdt_mean:.1f}",
        f"{point.dppl:.4f}",
        f"{point.perplexity:.3f}",
    )
