"""`python -m tests.chores test|bench|docs|lock`; `./nexusmix` installs the packages and calls it.

Commands import their modules when they run, so that `--help` answers at once.
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

    Without arguments all tests run, except those marked `long`. Arguments go to pytest:

    `./nexusmix test -k WORDS` runs the tests with these words in their names,

    `./nexusmix test -m slow` runs the tests with this mark (slow, long, gpu),

    `./nexusmix test tests/registry` runs the tests of a folder or a file.
    """
    from tests.chores import checks

    sys.exit(not checks.check(context.args))


@app.command(context_settings=PASSED_ON)
def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the benchmark; without it, list all.")
    ] = None,
) -> None:
    """Run a benchmark with the arguments after its name: try `bench NAME --help`."""
    from tests.chores import benchmarks

    if name is None:
        typer.echo(benchmarks.table())
    else:
        sys.exit(not benchmarks.run(name, context.args))


@app.command()
def docs() -> None:
    """Build the documentation; a warning is a failure. A running service shows it under /docs."""
    from tests.chores import documentation

    sys.exit(not documentation.build())


@app.command()
def lock() -> None:
    """Compile the lock files in requirements/ again."""
    from tests.chores import locks

    locks.compile_all()


def main() -> None:
    try:
        app(prog_name="./nexusmix")
    except NexusmixError as error:
        sys.exit(f"nexusmix: {error.detail}")


if __name__ == "__main__":
    main()
