"""Train, register and list experts; train the projection of a family."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service.cli.given import FROM_HELP, KEY_FILE_HELP, PEER_HELP, chosen, local, peer
from service.cli.needs_server import needs_server
from service.cli.paths import check_new_folder

app = typer.Typer()
command = partial(app.command, rich_help_panel="Experts")

LICENSE_HELP = "Its license, an SPDX expression; LicenseRef-NAME for terms of your own."
DOCUMENTS_HELP = (
    "Texts of its domain: JSON Lines (.jsonl) with id, text and split, or plain text in UTF-8. Of"
    " plain text every tenth part is held out."
)


@command()
@needs_server
def train_expert(
    documents: Annotated[Path, typer.Argument(help=DOCUMENTS_HELP)],
    target: Annotated[Path, typer.Argument(help="New folder for the expert's checkpoint.")],
    seed: Annotated[
        Path | None,
        typer.Option(help="Folder of the seed's checkpoint. Default: the seed of the demo."),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to train on.")] = None,
    train: Annotated[
        Literal["ffn", "all", "lora"],
        typer.Option(
            help="What is trained: the FFNs, which a mix keeps exactly; all parameters; or a LoRA"
            " adapter of the FFNs, a small file."
        ),
    ] = "ffn",
    learning_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Peak learning rate. Each part has its own default."),
    ] = None,
) -> None:
    """Train a dense expert of one domain from the seed of its family."""
    import json
    import shutil

    from registry.catalog.document_files import as_json_lines, check_expert_file
    from registry.ingest.checkpoint_folder import check_headers
    from service.runtime import preparation
    from service.terminal.console import console, working

    given = {"train": train, "tokens": tokens, "learning_rate": learning_rate}
    check_new_folder(target)
    check_expert_file(documents)
    if seed is not None:
        check_headers(seed)
    with as_json_lines(documents) as json_lines, working("seed") as show:
        _print_split(documents)
        if seed is None:
            seed = Path(preparation.run("seed", on_progress=show)["folder"])
        trained = preparation.run(
            "expert",
            str(seed.absolute()),
            str(json_lines.absolute()),
            json.dumps({name: value for name, value in given.items() if value is not None}),
            on_progress=show,
        )
        shutil.copytree(trained["folder"], target)
    metrics = trained["metrics"]
    before, after = metrics["seed_perplexity"], metrics["expert_perplexity"]
    console.print(f"{target}: held-out perplexity {before:.2f} -> {after:.2f}")


@command()
def register(
    name: Annotated[str, typer.Option(help="The expert's name.")],
    family: Annotated[str, typer.Option(help="The family that the expert was trained from.")],
    license: Annotated[str, typer.Option(help=LICENSE_HELP)],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A Hugging Face folder, the folder of a LoRA or DoRA adapter of peft, or a GGUF"
            " file; it is not changed."
        ),
    ] = None,
    address: Annotated[str | None, typer.Option("--from", help=FROM_HELP + PEER_HELP)] = None,
    from_key_file: Annotated[Path | None, typer.Option(help=KEY_FILE_HELP)] = None,
    description: Annotated[str, typer.Option(help="What the expert knows.")] = "",
    documents: Annotated[
        Path | None,
        typer.Option(help=f"{DOCUMENTS_HELP} Default: documents.jsonl in the folder."),
    ] = None,
    private_documents: Annotated[
        bool,
        typer.Option(
            "--private-documents",
            help="No report may quote the documents, and no projection learns from them.",
        ),
    ] = False,
    forget_documents: Annotated[
        bool,
        typer.Option(
            "--forget-documents",
            help="Delete the documents once the domain is embedded. Finetunes and gates cannot read"
            " them then.",
        ),
    ] = False,
) -> None:
    """Register an expert, or a new version of one, with the running service.

    The service checks it and embeds its domain; an adapter it merges into the family's seed first.
    The same folder again tries again what failed. What --from has fetched stays, so the same
    command goes on after an interruption.
    """
    from dataclasses import replace

    from registry.errors import InvalidInput
    from registry.fetching.addresses import PeerAddress
    from registry.fetching.fetched import NAME_DOCUMENTS
    from service.client.local import connect
    from service.terminal.console import console, notes, transfer, working
    from service.terminal.printable import printable

    given = chosen(folder, address)
    if documents is not None:
        _print_split(documents)
    with connect() as client, working("reading the folder") as show:
        if address is not None:
            client.check_expert(name, family=family, license=license, documents=documents)
        about: dict[str, Any] = {
            "name": name,
            "family": family,
            "license": license,
            "description": description,
            "private_documents": private_documents,
            "forget_documents": forget_documents,
            "on_transfer": lambda progress: show(transfer(progress)),
        }
        if isinstance(given, PeerAddress):
            if documents is None:
                raise InvalidInput(f"{given} gives out no documents: {NAME_DOCUMENTS}")
            with peer(given, from_key_file) as there:
                theirs = there.expert_version(given.ref)
                shown = str(replace(given, ref=theirs.ref))
                version = client.copy_expert(
                    theirs, there=there, address=shown, documents=documents, **about
                )
        else:
            check = partial(client.check_source, family=family, documents=documents)
            path, origin = local(given, show, check=check, needs_documents=documents is None)
            version = client.register_expert(path, documents=documents, origin=origin, **about)
        for note in version.notes:
            notes.print(printable(note))
        version = client.wait_for_embedding(version, on_wait=show)
    for warning in version.warnings:
        notes.print(printable(f"warning: {warning}"))
    forgotten = "" if version.documents_forgotten_at is None else ", and keeps no documents"
    console.print(f"{version.ref} is {version.state}{forgotten}")


@command()
def forget_documents(
    version: Annotated[
        str, typer.Argument(metavar="EXPERT", help="A version of an expert: NAME@NUMBER.")
    ],
) -> None:
    """Delete the documents of an expert's version. Mixes can still use it; a finetune does not
    read its domain, and a gate does not judge it."""
    from registry.errors import InvalidInput
    from registry.names import parse_ref
    from service.client.local import connect
    from service.terminal.console import console

    if parse_ref(version)[1] is None:
        raise InvalidInput(f"{version!r} names no version: give NAME@NUMBER")
    with connect() as client:
        body = client.forget_documents(client.expert_version(version))
    console.print(
        f"{body.ref} keeps no documents; house-keeping deletes the texts. Backups that were made"
        " before still hold them"
    )


@command()
def experts() -> None:
    """List the registered experts."""
    from service.client.local import connect
    from service.terminal.console import print_rows

    with connect() as client:
        rows = [
            (
                expert.name,
                expert.family,
                expert.license,
                expert.description,
                "; ".join(expert.notes),
            )
            for expert in client.experts()
        ]
    print_rows(("expert", "family", "license", "description", "notes"), rows)


@command()
def learn(
    family: Annotated[str, typer.Argument(help="The family whose projection is trained.")],
    experts: Annotated[
        list[str] | None, typer.Argument(help="Experts whose documents it learns from as well.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines in which each document names its domain. Default: those of the newest"
            " projection."
        ),
    ] = None,
) -> None:
    """Train a new projection of a family. Existing mixes keep theirs."""
    from service.client.local import connect
    from service.terminal.console import console, working

    with connect() as client, working("learning the projection") as show:
        requested = client.request_projection(family, documents=documents, experts=experts or [])
        projection = client.wait_for_projection(requested, on_wait=show)
    console.print(f"{projection.family}@{projection.number} is ready; new mixes use it")


def _print_split(path: Path) -> None:
    """Print how a plain text is split. JSON Lines name the split themselves."""
    from registry.catalog.document_files import JSON_LINES, read_text
    from service.terminal.console import console

    if path.suffix == JSON_LINES:
        return
    documents = read_text(path)
    num_held_out = sum(document.split == "held-out" for document in documents)
    console.print(f"{path}: {len(documents)} documents, {num_held_out} of them held out")
