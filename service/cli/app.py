"""The command line: one module for each group of commands.

Each command imports what it needs when it runs, so `--help` answers at once. Work that needs torch
runs in a child process.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer

from registry.errors import NexusmixError
from service.cli import (
    architectures,
    comparison,
    compression,
    experts,
    export,
    families,
    gates,
    housekeeping,
    keys,
    mixes,
    operation,
    policy,
)
from service.terminal.printable import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Register dense experts, mix them, check the mix token by token, and serve it.",
)
for group in (
    operation,
    housekeeping,
    architectures,
    families,
    experts,
    mixes,
    export,
    compression,
    comparison,
    gates,
    policy,
):
    app.add_typer(group.app)
app.add_typer(keys.app, name="keys", rich_help_panel="Operation")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"nexusmix {metadata.version('nexusmix')}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version, and do nothing else.",
        ),
    ] = False,
) -> None:
    """Take the options before the name of a command."""


def main() -> None:
    """Run the command line; print an error in one line, and each problem below it."""
    try:
        app()
    except NexusmixError as error:
        _print(f"nexusmix: {error.detail}")
        for problem in error.problems:
            # One that only repeats the sentence says nothing more.
            if problem.detail not in error.detail:
                place = f"{problem.pointer}: " if problem.pointer else ""
                _print(f"  {place}{problem.detail}")
        sys.exit(1)
    except OSError as error:
        # A disk that is full, a folder that may not be read: what the system says is the sentence.
        where = f"{error.filename}: " if error.filename else ""
        _print(f"nexusmix: {where}{error.strerror or error}")
        sys.exit(1)


def _print(line: str) -> None:
    """Print a line as it is: it may quote anybody's text."""
    sys.stderr.write(f"{printable(line)}\n")
