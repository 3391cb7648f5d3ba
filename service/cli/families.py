"""Register a family by its seed, learn its projection, and list families."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.given import FROM_HELP, chosen, local

if TYPE_CHECKING:
    from service.client.client import Client
    from service.schemas.families import ProjectionBody

LICENSE_HELP = "The seed's license, an SPDX expression; LicenseRef-NAME for terms of your own."
# What `--texts` takes instead of files. UNSAID: a projection that exists, or else the default set.
DEFAULT, EXPERTS, NONE, UNSAID = "default", "experts", "none", ""
WORDS = (DEFAULT, EXPERTS, NONE)
TEXTS_HELP = (
    "What the projection learns from. `default`: public texts of nine domains, which are fetched as"
    " Debian packages. `experts`: the documents of the family's experts. `none`: no projection yet."
    " Or a file of your own, text or JSON Lines, once for each domain. Without it: a projection"
    " that exists already, or else the default texts."
)
# Of a process that Ctrl-C ended.
INTERRUPTED = 130
app = typer.Typer()
command = partial(app.command, rich_help_panel="Experts")
family = typer.Typer(
    no_args_is_help=True, help="A family: a seed, and the experts that branch from it."
)
app.add_typer(family, name="family", rich_help_panel="Experts")


@family.command("add")
def add_family(
    name: Annotated[str, typer.Option(help="The family's name.")],
    license: Annotated[str, typer.Option(help=LICENSE_HELP)],
    folder: Annotated[
        Path | None, typer.Argument(help="The seed, a Hugging Face folder; it is not changed.")
    ] = None,
    address: Annotated[str | None, typer.Option("--from", help=FROM_HELP)] = None,
    description: Annotated[str, typer.Option(help="What the seed is.")] = "",
    texts: Annotated[list[str] | None, typer.Option(help=TEXTS_HELP)] = None,
) -> None:
    """Register a family by its seed, and learn its projection. It is ready to mix then.

    Interrupted, it goes on where it was: call it again.
    """
    from registry.ingest.checkpoint_folder import check_headers
    from service.client.local import connect
    from service.client.uploads import check_family
    from service.terminal.console import console, notes, transfer, working

    given = chosen(folder, address)
    check_family(name, license=license)
    try:
        with connect() as client, _chosen_texts(texts or []) as chosen_texts:
            with working("reading the folder") as show:
                path, origin = local(given, show, check=check_headers)
                body = client.register_family(
                    path,
                    name=name,
                    license=license,
                    description=description,
                    origin=origin,
                    on_transfer=lambda progress: show(transfer(progress)),
                )
                body = client.wait_for_family(body, on_wait=show)
            console.print(f"{body.name}: the seed is {body.state}")
            if chosen_texts == NONE:
                console.print(
                    f"mixes need a projection: nexusmix learn {body.name} --documents FILE"
                )
                return
            with working("choosing the texts of the projection") as show:
                projection = _projection(client, body.name, chosen_texts, on_progress=show)
                projection = client.wait_for_projection(projection, on_wait=show)
    except KeyboardInterrupt:
        notes.print("interrupted; what was sent stays, and the same command goes on")
        raise typer.Exit(INTERRUPTED) from None
    domains = ", ".join((projection.metrics or {}).get("domains", ()))
    console.print(
        f"{body.name} is ready to mix: projection {projection.family}@{projection.number}"
        + (f", learned from {domains}" if domains else "")
    )


@contextmanager
def _chosen_texts(texts: list[str]) -> "Iterator[str | Path]":
    """Yield one of the words, or the path of the documents in one file; UNSAID without a choice.

    Raises InvalidInput for files that a projection cannot learn from.
    """
    from registry.catalog.projection_files import as_projection_file
    from registry.errors import InvalidInput

    words = [text for text in texts if text in WORDS]
    if words and len(texts) > 1:
        raise InvalidInput(f"--texts {words[0]} stands alone: give it, or files")
    if words:
        yield words[0]
    elif texts:
        with as_projection_file([Path(text) for text in texts]) as path:
            yield path
    else:
        yield UNSAID


def _projection(
    client: "Client", family: str, chosen: "str | Path", *, on_progress: Callable[[str], None]
) -> "ProjectionBody":
    """Return the projection that was requested; without a choice one that exists already."""
    from assembler.demo.corpora import public_texts
    from registry.database.tables import ProjectionState

    if isinstance(chosen, Path):
        return client.request_projection(family, documents=chosen)
    if chosen == EXPERTS:
        return client.request_projection(family, all_experts=True)
    known = [row for row in client.projections(family) if row.state is not ProjectionState.FAILED]
    if chosen == UNSAID and known:
        return known[0]
    return client.request_projection(family, documents=public_texts.fetch(on_progress=on_progress))


@family.command("retry")
def retry_family(
    name: Annotated[str, typer.Argument(help="A family whose seed failed.")],
) -> None:
    """Check the seed of a family once more, after what kept it from being checked is mended."""
    from service.client.local import connect
    from service.terminal.console import console, working

    with connect() as client, working("checking the seed") as show:
        body = client.wait_for_family(client.retry_family(name), on_wait=show)
    console.print(f"{body.name} is {body.state}")


@command()
def families() -> None:
    """List the registered families, each with its state and why it failed."""
    from service.client.local import connect
    from service.terminal.console import print_rows

    with connect() as client:
        rows = [
            (
                body.name,
                body.state.value,
                str(body.num_checks),
                body.license,
                body.description,
                body.error or "",
            )
            for body in client.families()
        ]
    print_rows(("family", "state", "checks", "license", "seed", "reason"), rows)
