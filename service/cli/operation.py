"""Run the service and what it serves."""

import sys
from functools import partial
from typing import Annotated

import typer

from service.cli.needs_server import needs_server
from service.cli.options import Report

app = typer.Typer()
command = partial(app.command, rich_help_panel="Operation")


@command()
@needs_server
def up() -> None:
    """Serve until Ctrl-C: database, web pages and API, jobs, engines."""
    from registry import logs
    from registry.settings import settings
    from service.runtime import supervisor
    from service.terminal import console

    logs.configure("supervisor", level=settings().log_level)
    supervisor.up(on_ready=console.greet)


@command()
@needs_server
def demo(
    exit: Annotated[
        bool, typer.Option("--exit", help="End after the table instead of serving on.")
    ] = False,
    report: Report = None,
) -> None:
    """Run the main job on real input: three experts, one mix, gated, served, compared."""
    from service.demo import demo

    sys.exit(demo.main(stay=not exit, report_path=report))


@command()
def deploy(
    mix: Annotated[
        str,
        typer.Argument(metavar="MIX", help="A published mix: NAME, its newest, or NAME@NUMBER."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The name that applications ask for; the mix's own if not given."),
    ] = None,
) -> None:
    """Serve a published mix; what serves the name now goes on until it is ready.

    An earlier NAME@NUMBER brings that version back.
    """
    from service.cli import commands

    commands.deploy(mix, model=model)


@command()
def undeploy(
    model: Annotated[str, typer.Argument(help="The name that applications ask for.")],
) -> None:
    """End the serving of a model name, once what it has begun to answer is answered."""
    from service.cli import commands

    commands.undeploy(model)


@command()
def status() -> None:
    """Say where the service runs and what it serves."""
    from service.cli import commands

    commands.show_status()


@command()
def key() -> None:
    """Print this installation's API key."""
    from service.client import local

    typer.echo(local.key())


@command()
@needs_server
def migrate() -> None:
    """Bring the database of NEXUSMIX_DATABASE_URL up to date; `up` does it by itself."""
    import migrations
    from registry.errors import Unavailable
    from registry.settings import settings

    url = settings().database_url
    if url is None:
        raise Unavailable("NEXUSMIX_DATABASE_URL is not set; the embedded one is migrated by `up`")
    migrations.upgrade(url)
