"""Run the service, and serve models."""

import sys
from functools import partial
from typing import Annotated

import typer

from assembler.demo import seeds
from assembler.demo.demo_seed import DemoSeed
from registry.errors import InvalidInput
from service.cli import engine_options
from service.cli.needs_server import needs_server
from service.cli.options import NAMED, Report
from service.cli.paths import check_new_file

app = typer.Typer()
command = partial(app.command, rich_help_panel="Operation")


@command()
@needs_server
def up() -> None:
    """Run the service until Ctrl-C: database, web pages and API, jobs, engines."""
    from registry import logs
    from registry.settings import settings
    from service.runtime import supervisor
    from service.terminal.console import greet

    logs.configure("supervisor", level=settings().log_level)
    supervisor.up(on_ready=greet)


@command()
@needs_server
def demo(
    exit: Annotated[
        bool, typer.Option("--exit", help="End after the tables instead of serving on.")
    ] = False,
    family: Annotated[
        str, typer.Option(help=f"The family to make from its seed: {' or '.join(seeds.SEEDS)}.")
    ] = seeds.DEFAULT.name,
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license", help="Accept the terms of a seed that asks for it, such as Gemma."
        ),
    ] = False,
    report: Report = None,
) -> None:
    """Run everything once on public texts: train three experts, mix, gate, serve and compare."""
    from service.demo import demo

    seed = seeds.find(family)
    if seed.terms and not accept_license:
        _ask_for_consent(seed)
    seed.files()
    check_new_file(report)
    sys.exit(demo.main(seed, stay=not exit, report_path=report))


def _ask_for_consent(seed: DemoSeed) -> None:
    """Ask on the terminal whether the terms of a seed are accepted.

    Raises InvalidInput if not, and where nobody can answer.
    """
    question = f"{seed.name} is used under {seed.terms}. Do you accept them?"
    if not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        raise InvalidInput(f"{seed.name} is used under {seed.terms}: --accept-license accepts them")


@command()
def deploy(
    mix: Annotated[
        str,
        typer.Argument(metavar="MIX", help=f"A published mix: {NAMED}."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The model name for applications. Default: the name of the mix."),
    ] = None,
    pinned: Annotated[
        bool,
        typer.Option("--pinned", help="Never let it fall asleep to make room for other models."),
    ] = False,
    context: engine_options.Context = None,
    kv_memory: engine_options.KvMemory = None,
    tensor_parallel: engine_options.TensorParallel = None,
    dtype: engine_options.Dtype = None,
    chat_template: engine_options.ChatTemplate = None,
    tool_parser: engine_options.ToolParser = None,
    engine_args: engine_options.EngineArgs = None,
    defaults: engine_options.Defaults = False,
) -> None:
    """Serve a published mix. The present model of that name serves on until the new one is ready.

    Name an earlier NAME@NUMBER to go back to that version. Options of the engine replace all
    earlier ones; those that do not fit are refused before anything starts.
    """
    from service.client.local import connect
    from service.terminal.mix_progress import watch_deployment

    options = engine_options.fields(
        context=context,
        kv_memory=kv_memory,
        tensor_parallel=tensor_parallel,
        dtype=dtype,
        chat_template=chat_template,
        tool_parser=tool_parser,
        engine_args=engine_args,
        defaults=defaults,
    )
    with connect() as client:
        version = client.mix(mix)
        deployment = client.deploy(version, model=model, pinned=pinned, options=options)
        watch_deployment(client, version, deployment)


@command()
def undeploy(
    model: Annotated[str, typer.Argument(help="The model name that applications use.")],
) -> None:
    """Stop serving a model. Requests that have started are finished, within the drain time."""
    from service.client.local import connect
    from service.terminal.console import console

    with connect() as client:
        client.undeploy(model)
    console.print(f"{model} is not served any more; requests that have started are still answered")


@command()
def status() -> None:
    """Print where the service runs and what it serves; ends with 1 when it does not run."""
    from engine.serving.tables import DeploymentState
    from registry.settings import settings
    from service import home
    from service.client.local import connect
    from service.terminal.console import console, print_rows

    holder = home.holder(settings().home)
    if holder is None:
        console.print(f"nothing runs on {settings().home}")
        sys.exit(1)
    console.print(f"process {holder.pid} serves {settings().home} at {holder.address}")
    with connect() as client:
        rows = [
            (
                deployment.model,
                f"preview of {deployment.ref}" if deployment.preview else "release",
                deployment.state.value,
                ", ".join(deployment.options.listed()),
                deployment.error or "",
            )
            for deployment in client.deployments()
            if deployment.state is not DeploymentState.STOPPED
        ]
    print_rows(("model", "serves", "state", "options", "error"), rows)


@command()
def key() -> None:
    """Print the API key of this installation."""
    from service.client import local

    typer.echo(local.key())


@command()
def sign_in() -> None:
    """Print a link to the pages that signs a browser in, once and within minutes."""
    from service.client import local

    with local.key_client() as client:
        link = client.create_sign_in_link()
        typer.echo(client.address + link.path)


@command()
@needs_server
def migrate() -> None:
    """Bring the database of NEXUSMIX_DATABASE_URL up to date. `up` does it by itself."""
    import migrations
    from registry.errors import Unavailable
    from registry.settings import settings

    url = settings().database_url
    if url is None:
        raise Unavailable("NEXUSMIX_DATABASE_URL is not set; `up` migrates the embedded database")
    migrations.upgrade(url)
