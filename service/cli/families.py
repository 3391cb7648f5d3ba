"""Register a family by its seed, and list families."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

LICENSE_HELP = "The seed's license, an SPDX expression; LicenseRef-NAME for terms of your own."
app = typer.Typer()
command = partial(app.command, rich_help_panel="Experts")
family = typer.Typer(
    no_args_is_help=True, help="A family: a seed, and the experts that branch from it."
)
app.add_typer(family, name="family", rich_help_panel="Experts")


@family.command("add")
def add_family(
    folder: Annotated[
        Path, typer.Argument(help="The seed, a Hugging Face folder; it is not changed.")
    ],
    name: Annotated[str, typer.Option(help="The family's name.")],
    license: Annotated[str, typer.Option(help=LICENSE_HELP)],
    description: Annotated[str, typer.Option(help="What the seed is.")] = "",
) -> None:
    """Register a family by its seed, which the service checks. `nexusmix learn` then trains its
    projection."""
    from service.client.local import connect
    from service.terminal.console import console, transfer, working

    with connect() as client, working("reading the folder") as show:
        body = client.register_family(
            folder,
            name=name,
            license=license,
            description=description,
            on_transfer=lambda progress: show(transfer(progress)),
        )
        body = client.wait_for_family(body, on_wait=show)
    console.print(
        f"{body.name} is {body.state}; mixes need a projection:"
        f" nexusmix learn {body.name} --documents FILE"
    )


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
