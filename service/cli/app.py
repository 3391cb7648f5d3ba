"""The command line: one module for each group of commands.

Each command imports what it needs when it runs, so `--help` answers at once. Work that needs torch
runs in a child process.
"""

import sys

import typer

from registry.errors import NexusmixError
from service.cli import (
    comparison,
    compression,
    experts,
    gates,
    housekeeping,
    keys,
    mixes,
    operation,
    policy,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Register dense experts, mix them, check the mix token by token, and serve it.",
)
for group in (operation, housekeeping, experts, mixes, compression, comparison, gates, policy):
    app.add_typer(group.app)
app.add_typer(keys.app, name="keys", rich_help_panel="Operation")


def main() -> None:
    """Run the command line; print an error in one line, and each problem below it."""
    try:
        app()
    except NexusmixError as error:
        sys.stderr.write(f"nexusmix: {error.detail}\n")
        for problem in error.problems:
            sys.stderr.write(f"  {problem.pointer}: {problem.detail}\n")
        sys.exit(1)
