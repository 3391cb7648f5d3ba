"""The command line. Imports are inside the commands: `--help` answers at once, and so does a typo.

The parts that need torch run as processes of their own.
"""

import sys

import typer

from registry.errors import NexusmixError
from service.cli import compression, experts, gates, mixes, operation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Register dense experts, have them mixed, gated token by token, and served.",
)
for group in (operation, experts, mixes, compression, gates):
    app.add_typer(group.app)


def main() -> None:
    try:
        app()
    except NexusmixError as error:
        sys.stderr.write(f"nexusmix: {error.detail}\n")
        for problem in error.problems:
            sys.stderr.write(f"  {problem.pointer}: {problem.detail}\n")
        sys.exit(1)
