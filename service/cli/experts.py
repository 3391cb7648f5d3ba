"""Train, register and list experts; learn a family's projection."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.cli.needs_server import needs_server

app = typer.Typer()
command = partial(app.command, rich_help_panel="Experts")

DOCUMENTS_HELP = (
    "Texts of its domain: a .jsonl of id, text and split, or plain text in UTF-8, of which every"
    " tenth part is held out."
)


@command()
@needs_server
def train_expert(
    documents: Annotated[Path, typer.Argument(help=DOCUMENTS_HELP)],
    target: Annotated[Path, typer.Argument(help="New folder for the expert's checkpoint.")],
    seed: Annotated[
        Path | None, typer.Option(help="Folder of the seed's checkpoint; the demo's if not given.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to train on.")] = None,
) -> None:
    """Train a dense expert of one domain from its family's seed."""
    from service.cli import commands

    commands.train_expert(documents, target, seed=seed, tokens=tokens)


@command()
def register(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face folder; it stays as it is.")],
    name: Annotated[str, typer.Option(help="The expert's name.")],
    family: Annotated[str, typer.Option(help="The family it branched from.")],
    license: Annotated[str, typer.Option(help="SPDX name of its license.")],
    description: Annotated[str, typer.Option(help="What it is expert in.")] = "",
    documents: Annotated[
        Path | None,
        typer.Option(help=f"{DOCUMENTS_HELP} The folder's documents.jsonl if not given."),
    ] = None,
) -> None:
    """Register an expert, or a new version of one, with the running service."""
    from service.cli import commands

    commands.register(
        folder,
        name=name,
        family=family,
        license=license,
        description=description,
        documents=documents,
    )


@command()
def experts() -> None:
    """List the registered experts."""
    from service.cli import commands

    commands.list_experts()


@command()
def learn(
    family: Annotated[str, typer.Argument(help="The family whose projection learns on.")],
    experts: Annotated[
        list[str] | None, typer.Argument(help="Experts whose documents it learns from as well.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(help="JSON Lines with a domain each; the newest projection's if not given."),
    ] = None,
) -> None:
    """Have a family's projection learned anew; mixes that exist keep theirs."""
    from service.cli import commands

    commands.learn(family, experts or [], documents=documents)
