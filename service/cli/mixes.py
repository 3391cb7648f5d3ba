"""Request mixes and changes of them, plan both, list, export and repeat them."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
command = partial(app.command, rich_help_panel="Mixes")

plan = typer.Typer(
    no_args_is_help=True,
    help="Say what `mix`, `extend`, `remove` or `replace` would mean, in the same words: all that"
    " is wrong, or what it reads, writes, needs and takes. Ends with 1 when it cannot be made.",
)
app.add_typer(plan, name="plan", rich_help_panel="Mixes")

Tokens = Annotated[
    int | None,
    typer.Option(min=0, help="Tokens of the finetune, 0 for none; the preset's if not given."),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        help="A policy for the gate, YAML or JSON: what it leaves out stays as it is; --set"
        " gates.FIELD goes over it."
    ),
]
Deploy = Annotated[bool, typer.Option(help="Serve it once its gate has passed.")]
Finished = Annotated[
    str, typer.Argument(metavar="MIX", help="A finished mix: NAME, its newest, or NAME@NUMBER.")
]
Member = Annotated[str, typer.Argument(help="One of its experts: NAME, or NAME@NUMBER.")]
NewExpert = Annotated[
    str, typer.Argument(help="Who joins: NAME, its newest version, or NAME@NUMBER.")
]
NewName = Annotated[
    str | None, typer.Option(help="Of the mix that comes of it; a new version if not given.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the preset: one of the recipe, for instance experts_per_token=2,"
        " finetune.FIELD, compress.FIELD, gates.FIELD or gates.served.FIELD; may be given again. A"
        " wrong one is refused with what there is.",
    ),
]
PartFields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change finetune.FIELD of the preset or gates.FIELD of the base, or compress, for"
        " instance finetune.new_share=0.7 or compress.min_fdt_75=24; may be given again. All else"
        " stays as the base has it.",
    ),
]


@command()
@plan.command(help="Plan a new mix.")
def mix(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The mix's name, and the model name it answers to.")],
    experts: Annotated[
        list[str], typer.Argument(help="NAME, its newest version, or NAME@NUMBER; at least two.")
    ],
    family: Annotated[str, typer.Option(help="The family of all of them.")],
    preset: Annotated[
        str, typer.Option(help="How it is assembled; `nexusmix presets` lists them.")
    ] = "nexus",
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: Fields = None,
    deploy: Deploy = True,
) -> None:
    """Request a mix and watch it being made; Ctrl-C ends the watching only."""
    from service.cli import commands

    commands.mix(
        name,
        experts,
        family=family,
        preset=preset,
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        deploy=deploy,
        only_plan=_only_plan(context),
    )


@command()
@plan.command(help="Plan to append one more expert to a finished mix.")
def extend(
    context: typer.Context,
    ref: Finished,
    expert: NewExpert,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: PartFields = None,
    deploy: Deploy = True,
) -> None:
    """Append one more expert to a finished mix."""
    from service.cli import commands

    commands.revise(
        ref,
        "extend",
        {"expert": expert, "name": name, "deploy": deploy},
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        only_plan=_only_plan(context),
    )


@command()
@plan.command(help="Plan to take one expert out of a finished mix.")
def remove(
    context: typer.Context,
    ref: Finished,
    expert: Member,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: PartFields = None,
    deploy: Deploy = True,
) -> None:
    """Take one expert out of a finished mix."""
    from service.cli import commands

    commands.revise(
        ref,
        "remove",
        {"expert": expert, "name": name, "deploy": deploy},
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        only_plan=_only_plan(context),
    )


@command()
@plan.command(help="Plan to put an expert in the place of one of a finished mix.")
def replace(
    context: typer.Context,
    ref: Finished,
    expert: Member,
    by: NewExpert,
    name: NewName = None,
    tokens: Tokens = None,
    policy: PolicyFile = None,
    fields: PartFields = None,
    deploy: Deploy = True,
) -> None:
    """Put an expert, or another version of it, in the place of one of a finished mix."""
    from service.cli import commands

    commands.revise(
        ref,
        "replace",
        {"expert": expert, "by": by, "name": name, "deploy": deploy},
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        only_plan=_only_plan(context),
    )


def _only_plan(context: typer.Context) -> bool:
    """Whether a command was called as one of `plan`."""
    return context.parent is not None and context.parent.command.name == "plan"


@command()
def presets() -> None:
    """List the recipes that have a name: what each is for, and where it is not `nexus`."""
    from service.cli import commands

    commands.list_presets()


@command()
def mixes() -> None:
    """List the versions of all mixes, and what each was made from."""
    from service.cli import commands

    commands.list_mixes()


@command()
def export(
    version: Annotated[str, typer.Argument(help="A mix: NAME, or NAME@NUMBER.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    expert: Annotated[
        bool, typer.Option("--expert", help="NAME is an expert's, not a mix's.")
    ] = False,
) -> None:
    """Write a mix, or an expert, as a folder of Hugging Face files."""
    from service.cli import commands

    commands.export(version, folder, of="experts" if expert else "mixes")


@command()
def reproduce(
    provenance: Annotated[
        str, typer.Argument(help="A file of provenance, or NAME@NUMBER of a mix.")
    ],
    assembly_only: Annotated[
        bool, typer.Option("--assembly-only", help="Do not repeat the finetune.")
    ] = False,
) -> None:
    """Make a mix again from its provenance; ends with 0 only if every byte is the same."""
    from service.cli import commands

    if not commands.reproduce(provenance, assembly_only=assembly_only):
        sys.exit(1)
