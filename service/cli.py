"""The command line. Imports are inside the commands: `--help` answers at once, and so does a typo.

The parts that need torch run as processes of their own.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from registry.errors import NexusmixError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Register dense experts, have them mixed, gated token by token, and served.",
)

Report = Annotated[
    Path | None, typer.Option(help="Write all figures and stage times to this file, as JSON.")
]

Tokens = Annotated[int | None, typer.Option(min=0, help="Tokens of the finetune.")]
Deploy = Annotated[bool, typer.Option(help="Serve it once its gate has passed.")]
Finished = Annotated[str, typer.Argument(metavar="MIX", help="NAME or NAME@NUMBER, finished.")]
Member = Annotated[str, typer.Argument(help="One of its experts.")]
NewExpert = Annotated[str, typer.Argument(help="NAME, or NAME@NUMBER for a certain version.")]


def main() -> None:
    try:
        app()
    except NexusmixError as error:
        sys.stderr.write(f"nexusmix: {error.detail}\n")
        for problem in error.problems:
            sys.stderr.write(f"  {problem.pointer}: {problem.detail}\n")
        sys.exit(1)


@app.command()
def up() -> None:
    """Serve until Ctrl-C: database, web pages and API, jobs, engines."""
    from registry import logs
    from registry.settings import settings
    from service import console, supervisor

    logs.configure("supervisor", level=settings().log_level)
    supervisor.up(on_ready=console.greet)


@app.command()
def demo(
    exit: Annotated[
        bool, typer.Option("--exit", help="End after the table instead of serving on.")
    ] = False,
    report: Report = None,
) -> None:
    """Run the main job on real input: three experts, one mix, gated, served, compared."""
    from service import demo

    sys.exit(demo.main(stay=not exit, report_path=report))


@app.command()
def train_expert(
    documents: Annotated[Path, typer.Argument(help="JSON Lines: id, text, split.")],
    target: Annotated[Path, typer.Argument(help="New folder for the expert's checkpoint.")],
    seed: Annotated[
        Path | None, typer.Option(help="Folder of the seed's checkpoint; the demo's if not given.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to train on.")] = None,
) -> None:
    """Train a dense expert of one domain from its family's seed."""
    from service import commands

    commands.train_expert(documents, target, seed=seed, tokens=tokens)


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="Checkpoint with documents.jsonl beside it.")],
    name: Annotated[str, typer.Option(help="The expert's name.")],
    family: Annotated[str, typer.Option(help="The family it branched from.")],
    licence: Annotated[str, typer.Option(help="SPDX name of its licence.")],
    description: Annotated[str, typer.Option(help="What it is expert in.")] = "",
) -> None:
    """Register an expert, or a new version of one, with the running service."""
    from service import commands

    commands.register(folder, name=name, family=family, licence=licence, description=description)


@app.command()
def mix(
    name: Annotated[str, typer.Argument(help="The mix's name, and the model name it answers to.")],
    experts: Annotated[list[str], typer.Argument(help="NAME or NAME@NUMBER, at least two.")],
    family: Annotated[str, typer.Option(help="The family of all of them.")],
    preset: Annotated[str, typer.Option(help="How it is assembled.")] = "nexus",
    tokens: Tokens = None,
    deploy: Deploy = True,
) -> None:
    """Request a mix and watch it being made."""
    from service import commands

    commands.mix(name, experts, family=family, preset=preset, tokens=tokens, deploy=deploy)


@app.command()
def extend(ref: Finished, expert: NewExpert, tokens: Tokens = None, deploy: Deploy = True) -> None:
    """Append one more expert to a finished mix."""
    from service import commands

    commands.revise(ref, "extend", expert=expert, by=None, tokens=tokens, deploy=deploy)


@app.command()
def remove(ref: Finished, expert: Member, tokens: Tokens = None, deploy: Deploy = True) -> None:
    """Take one expert out of a finished mix."""
    from service import commands

    commands.revise(ref, "remove", expert=expert, by=None, tokens=tokens, deploy=deploy)


@app.command()
def replace(
    ref: Finished, expert: Member, by: NewExpert, tokens: Tokens = None, deploy: Deploy = True
) -> None:
    """Put an expert in the place of one of a finished mix."""
    from service import commands

    commands.revise(ref, "replace", expert=expert, by=by, tokens=tokens, deploy=deploy)


@app.command()
def plan(
    name: Annotated[str, typer.Argument(help="The name that the mix would have.")],
    experts: Annotated[list[str], typer.Argument(help="NAME or NAME@NUMBER, at least two.")],
    family: Annotated[str, typer.Option(help="The family of all of them.")],
    preset: Annotated[str, typer.Option(help="How it would be assembled.")] = "nexus",
    tokens: Annotated[int | None, typer.Option(min=0, help="Tokens of the finetune.")] = None,
    base: Annotated[
        str | None, typer.Option(help="A finished mix that would be changed to have just these.")
    ] = None,
) -> None:
    """Say what a mix would mean before it is made; ends with 1 when it cannot be."""
    from service import commands

    commands.plan(name, experts, family=family, preset=preset, tokens=tokens, base=base)


@app.command()
def learn(
    family: Annotated[str, typer.Argument(help="The family whose projection learns on.")],
    experts: Annotated[
        list[str] | None, typer.Argument(help="Experts whose documents it learns from as well.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(help="JSON Lines with a domain each; the newest projection's if not given."),
    ] = None,
) -> None:
    """Have a family's projection learned anew; mixes that exist keep theirs."""
    from service import commands

    commands.learn(family, experts or [], documents=documents)


@app.command()
def export(
    version: Annotated[str, typer.Argument(help="A mix: NAME, or NAME@NUMBER.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    expert: Annotated[
        bool, typer.Option("--expert", help="NAME is an expert's, not a mix's.")
    ] = False,
) -> None:
    """Write a mix, or an expert, as a folder of Hugging Face files."""
    from service import commands

    commands.export(version, folder, of="experts" if expert else "mixes")


@app.command()
def reproduce(
    lock: Annotated[str, typer.Argument(help="A lock's file, or NAME@NUMBER of a mix.")],
    assembly_only: Annotated[
        bool, typer.Option("--assembly-only", help="Do not repeat the finetune.")
    ] = False,
) -> None:
    """Make a mix again from its lock; ends with 0 only if every byte is the same."""
    from service import commands

    if not commands.reproduce(lock, assembly_only=assembly_only):
        sys.exit(1)


@app.command()
def experts() -> None:
    """List the registered experts."""
    from service import commands

    commands.list_experts()


@app.command()
def mixes() -> None:
    """List the mixes."""
    from service import commands

    commands.list_mixes()


@app.command()
def status() -> None:
    """Say where the service runs and what it serves."""
    from service import commands

    commands.show_status()


@app.command()
def key() -> None:
    """Print this installation's API key."""
    from service import background

    typer.echo(background.key())


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(context: typer.Context) -> None:
    """Lint, format, types and tests; what follows is handed to pytest."""
    from service import development

    sys.exit(not development.check(context.args))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
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


@app.command()
def lock() -> None:
    """Compile both lock files anew."""
    from service import development

    development.lock()


@app.command()
def migrate() -> None:
    """Bring the database of NEXUSMIX_DATABASE_URL up to date; `up` does it by itself."""
    import migrations
    from registry.errors import Unavailable
    from registry.settings import settings

    url = settings().database_url
    if url is None:
        raise Unavailable("NEXUSMIX_DATABASE_URL is not set; the embedded one is migrated by `up`")
    migrations.upgrade(url)


if __name__ == "__main__":
    main()
