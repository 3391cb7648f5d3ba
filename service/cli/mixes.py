"""Request, plan and retry mixes and their changes; list and reproduce them."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.needs_server import needs_server
from service.cli.options import (
    NAMED,
    Deploy,
    Fields,
    FinishedMix,
    Member,
    NewExpert,
    NewName,
    PolicyFile,
    Preview,
    RevisionFields,
    Tokens,
)
from service.cli.paths import is_path

if TYPE_CHECKING:
    from assembler.planning.plan_data import Plan
    from service.client.client import Change

app = typer.Typer()
command = partial(app.command, rich_help_panel="Mixes")

plan = typer.Typer(
    no_args_is_help=True,
    help="Print what `mix`, `extend`, `remove` or `replace` would do, without doing it: every"
    " problem, or what each step reads, writes, needs and takes. Same arguments and options. Ends"
    " with 1 when the mix cannot be made.",
)
app.add_typer(plan, name="plan", rich_help_panel="Mixes")


@command()
@plan.command(help="Plan a new mix.")
def mix(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the mix, and of the model it is served as.")],
    experts: Annotated[
        list[str],
        typer.Argument(help="At least two: NAME for the newest ready version, or NAME@NUMBER."),
    ],
    family: Annotated[str, typer.Option(help="The family of all these experts.")],
    preset: Annotated[
        str, typer.Option(help="The recipe to start from; `nexusmix presets` lists them.")
    ] = "nexus",
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: Fields = None,
    deploy: Deploy = True,
    preview: Preview = True,
) -> None:
    """Request a mix and follow it. Ctrl-C stops the following only; the mix goes on."""
    from service.client.local import connect
    from service.terminal.mix_progress import watch_mix

    request = _recipe_changes(fields or [], tokens=tokens, policy=policy) | {
        "name": name,
        "family": family,
        "experts": experts,
        "preset": preset,
        "deploy": deploy,
        "preview": preview,
    }
    with connect() as client:
        if _is_plan(context):
            _print_plan(client.plan_mix(**request))
        else:
            watch_mix(client, client.request_mix(**request))


@command()
@plan.command(help="Plan to add one expert to a finished mix.")
def extend(
    context: typer.Context,
    ref: FinishedMix,
    expert: NewExpert,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: RevisionFields = None,
    deploy: Deploy = True,
    preview: Preview = False,
) -> None:
    """Add one expert to a finished mix."""
    request = _recipe_changes(fields or [], tokens=tokens, policy=policy)
    request |= {"expert": expert, "name": name, "deploy": deploy, "preview": preview}
    _revise(context, ref, "extend", request)


@command()
@plan.command(help="Plan to remove one expert from a finished mix.")
def remove(
    context: typer.Context,
    ref: FinishedMix,
    expert: Member,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: RevisionFields = None,
    deploy: Deploy = True,
    preview: Preview = False,
) -> None:
    """Remove one expert from a finished mix."""
    request = _recipe_changes(fields or [], tokens=tokens, policy=policy)
    request |= {"expert": expert, "name": name, "deploy": deploy, "preview": preview}
    _revise(context, ref, "remove", request)


@command()
@plan.command(help="Plan to replace one expert of a finished mix.")
def replace(
    context: typer.Context,
    ref: FinishedMix,
    expert: Member,
    by: NewExpert,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: RevisionFields = None,
    deploy: Deploy = True,
    preview: Preview = False,
) -> None:
    """Replace one expert of a finished mix by another one, or by another version of it."""
    request = _recipe_changes(fields or [], tokens=tokens, policy=policy)
    request |= {"expert": expert, "by": by, "name": name, "deploy": deploy, "preview": preview}
    _revise(context, ref, "replace", request)


@command()
def retry(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="MIX",
            help="A version that failed, was cancelled or is parked: NAME@NUMBER.",
        ),
    ],
) -> None:
    """Go on with a mix that failed, was cancelled or is parked, and follow it.

    Steps that have ended are not repeated, and a finetune goes on from its last checkpoint.
    """
    from service.client.local import connect
    from service.terminal.mix_progress import watch_mix

    with connect() as client:
        watch_mix(client, client.retry_mix(client.mix(ref)))


@command()
def presets() -> None:
    """List the presets: what each is for, and where it differs from `nexus`."""
    from service.assignments import as_text
    from service.client.local import connect
    from service.terminal.console import print_rows

    with connect() as client:
        rows = [
            (
                preset.name,
                preset.description,
                "\n".join(f"{field}={as_text(value)}" for field, value in preset.changed.items()),
            )
            for preset in client.presets()
        ]
    print_rows(("preset", "what it is for", "differs from nexus in"), rows)


@command()
def mixes() -> None:
    """List the versions of all mixes, newest first."""
    from service.client.local import connect
    from service.terminal.console import moment, print_rows

    with connect() as client:
        previews = client.previews()
        rows = [
            (
                mix.ref,
                f"{mix.state}, preview answers" if mix.ref in previews else mix.state.value,
                mix.preset,
                mix.base or "",
                ", ".join(mix.recipe["experts"]),
                moment(mix.created_at),
            )
            for mix in client.mixes()
        ]
    print_rows(("mix", "state", "preset", "base", "experts", "requested"), rows)


@command()
@needs_server
def reproduce(
    provenance: Annotated[
        str, typer.Argument(help=f"A provenance file, or a published mix: {NAMED}.")
    ],
    assembly_only: Annotated[
        bool, typer.Option("--assembly-only", help="Do not repeat the finetune.")
    ] = False,
) -> None:
    """Make a mix again from its provenance; ends with 0 only if every byte is the same.

    Reads the tensors from the store of this data folder.
    """
    import json
    from tempfile import TemporaryDirectory

    from registry.errors import InvalidInput
    from service.client.local import connect
    from service.runtime import preparation
    from service.terminal.console import console, working

    with TemporaryDirectory(prefix="nexusmix-") as folder, working("provenance") as show:
        path = Path(provenance)
        if not is_path(provenance):
            path = Path(folder) / "provenance.json"
            with connect() as client:
                path.write_text(json.dumps(client.provenance(client.mix(provenance))))
        elif not path.is_file():
            raise InvalidInput(f"there is no file {path}: give a provenance, or the name of a mix")
        stages = ["assembly"] if assembly_only else []
        report = preparation.run("reproduce", str(path.absolute()), *stages, on_progress=show)
    for difference in report["differences"]:
        console.print(f"made elsewhere: {difference}")
    for stage in report["stages"]:
        outcome = "the same" if stage["same"] else f"differs from {stage['expected']}"
        console.print(f"{stage['name']}: {stage['made']}, {outcome}")
        for name in stage["differing"]:
            console.print(f"  {name} differs")
    if not report["same"]:
        sys.exit(1)


def _is_plan(context: typer.Context) -> bool:
    """Return whether a command was called as `nexusmix plan COMMAND`."""
    return context.parent is not None and context.parent.command.name == "plan"


def _recipe_changes(
    fields: Sequence[str], *, tokens: int | None, policy: Path | None
) -> dict[str, Any]:
    """Return the recipe fields of a request.

    `fields`, FIELD=VALUE each, override the file `policy`; `tokens` overrides both. Raises
    InvalidInput.
    """
    from assembler.recipes.field_changes import merge_changes
    from service import assignments
    from service.cli.policy import read_policy

    changes = assignments.read(fields)
    if policy is not None:
        changes["gates"] = merge_changes(read_policy(policy), changes.get("gates", {}))
    if tokens is not None:
        changes["finetune"] = changes.get("finetune", {}) | {"tokens": tokens}
    return changes


def _revise(context: typer.Context, ref: str, change: "Change", request: dict[str, Any]) -> None:
    """Plan a change of a finished mix, or request it and follow it."""
    from service.client.local import connect
    from service.terminal.mix_progress import watch_mix

    with connect() as client:
        base = client.mix(ref)
        if _is_plan(context):
            _print_plan(client.plan_revision(base, change, **request))
        else:
            watch_mix(client, client.revise_mix(base, change, **request))


def _print_plan(plan: "Plan") -> None:
    """Print a plan, and end the command with 1 when the mix cannot be made."""
    from service.terminal.plan_tables import print_plan

    print_plan(plan)
    if plan.problems:
        sys.exit(1)
