"""For those who change nexusmix; all of it needs a checkout."""

import sys
from functools import partial
from typing import Annotated

import typer

app = typer.Typer()
command = partial(app.command, rich_help_panel="Development")


@command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(context: typer.Context) -> None:
    """Lint, format, types and tests; what follows is handed to pytest."""
    from service import development

    sys.exit(not development.check(context.args))


@command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; all are listed if not given.")] = None,
) -> None:
    """Run a benchmark, with what follows its name as its options; needs a checkout."""
    from service import development

    if name is None:
        typer.echo("\n".join(development.benchmarks()))
    else:
        sys.exit(not development.bench(name, context.args))


@command()
def lock() -> None:
    """Compile the lock files anew."""
    from service import development

    development.lock()
