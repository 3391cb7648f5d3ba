"""Make a mix, an expert or a folder smaller."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.cli.needs_server import needs_server

app = typer.Typer()
command = partial(app.command, rich_help_panel="Mixes")


@command()
@needs_server
def compress(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MIX_OR_FOLDER",
            help="A published mix: NAME, or NAME@NUMBER; or a dense model's folder.",
        ),
    ],
    min_fdt_75: Annotated[
        float | None,
        typer.Option(help="Three of four texts may diverge before this token, not earlier."),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Zeros in place of int8: the share of all weights of attention and FFNs, as far"
            " as --min-fdt-75 allows."
        ),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of all tensors together.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="What will serve int8: cpu, cpu-vnni (has int8 instructions) or gpu."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="What decides: fdt, dppl; of int8 also perplexity or order, the network's own;"
            " of zeros also uniform, the same share of each matrix."
        ),
    ] = "fdt",
    beam_width: Annotated[
        int | None, typer.Option(help="Configurations kept in each round, 1 if not given.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="In how many steps all would be int8, 8 if not given.")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="By how much each round raises the share of zeros, 0.1 if not given."),
    ] = None,
    retrain_tokens: Annotated[
        int | None,
        typer.Option(help="Of training text that what zeros leave learns from after each round."),
    ] = None,
    keep_zeros: Annotated[
        bool,
        typer.Option(
            "--keep-zeros",
            help="Leave in the attention and FFN columns of which only zeros are left: stock"
            " vLLM and transformers know no Llama without them.",
        ),
    ] = False,
    prompts: Annotated[
        int | None, typer.Option(help="Held-out prefixes that are compared, 16 if not given.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(help="JSON Lines: id, text, split; documents.jsonl of the folder else."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="New folder, which stock vLLM loads if it is dense.")
    ] = None,
    expert: Annotated[
        bool, typer.Option("--expert", help="NAME is an expert's, not a mix's.")
    ] = False,
) -> None:
    """Make linear layers int8, as many as the first divergent token or a size asks, or with
    --sparsity set the smallest weights of each matrix to zero.

    Zeros are stored compactly in the service's store; a folder has them as numbers, for others.

    Prints the curve that the search came along; * marks the point that was written.
    """
    from service.cli import compressing

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
    compressing.compress(source, fields, documents=documents, output=output, is_expert=expert)
