"""`python -m tests.chores test|bench|docs|lock`; `./nexusmix` calls it, and installs what it needs.

Imports are inside the commands, so that `--help` answers at once.
"""

import sys
from typing import Annotated

import typer

from registry.errors import NexusmixError

PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Chores in a checkout.",
)


@app.command(context_settings=PASSED_ON)
def test(context: typer.Context) -> None:
    """Check lint, format, types, documentation and tests.

    Without arguments all tests run but those marked `long`. Arguments go to pytest:

    `./nexusmix test -k WORDS` runs the tests with these words in their names,

    `./nexusmix test -m slow` those with this mark (slow, long, gpu),

    `./nexusmix test tests/registry` those of a folder or a file.
    """
    from tests.chores import checks

    sys.exit(not checks.check(context.args))


@app.command(context_settings=PASSED_ON)
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which; without it all are listed.")] = None,
) -> None:
    """Run a benchmark. What follows its name is handed to it: try `bench NAME --help`."""
    from tests.chores import benchmarks

    if name is None:
        typer.echo(benchmarks.table())
    else:
        sys.exit(not benchmarks.run(name, context.args))


@app.command()
def docs() -> None:
    """Build the documentation, strictly. A running service shows it under /docs."""
    from tests.chores import documentation

    sys.exit(not documentation.build())


@app.command()
def lock() -> None:
    """Compile the lock files in requirements/ anew."""
    from tests.chores import locks

    locks.compile_all()


def main() -> None:
    try:
        app(prog_name="./nexusmix")
    except NexusmixError as error:
        sys.exit(f"nexusmix: {error.detail}")


if __name__ == "__main__":
    main()
