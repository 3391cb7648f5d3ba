"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

# The rule is in `registry.catalog.references`, and on the page on names in the documentation.
NAMED = "NAME for its newest published version (of an expert the newest ready), or NAME@NUMBER"

Report = Annotated[
    Path | None, typer.Option(help="Write all figures and stage times to this file, as JSON.")
]
Page = Annotated[
    Path | None,
    typer.Option(help="Write a page with survival curves and examples to this file."),
]
IsExpert = Annotated[
    bool, typer.Option("--expert", help="The name is the name of an expert, not of a mix.")
]

# What `mix`, `extend`, `remove`, `replace` and their plans share.
Tokens = Annotated[
    int | None,
    typer.Option(
        min=0, help="Tokens of the finetune. 0: no finetune. Default: as the preset says."
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        help="A policy for the gate, YAML or JSON. Fields that it leaves out stay as they are;"
        " --set gates.FIELD overrides it."
    ),
]
Deploy = Annotated[bool, typer.Option(help="Serve the mix once its gate has passed.")]
Preview = Annotated[
    bool,
    typer.Option(
        help="Unless --no-deploy: serve the mix as a preview from its assembly on, marked as such,"
        " until its gate has judged it."
    ),
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the preset: of the recipe, for instance experts_per_token=2, or"
        " finetune.FIELD, compress.FIELD, gates.FIELD, gates.served.FIELD. Repeat it for more"
        " fields. A wrong field is refused with a list of the right ones.",
    ),
]

# What `extend`, `remove`, `replace` and their plans share.
FinishedMix = Annotated[
    str,
    typer.Argument(
        metavar="MIX",
        help="A published mix: NAME for its newest published version, or NAME@NUMBER.",
    ),
]
Member = Annotated[str, typer.Argument(help="One expert of the mix: NAME, or NAME@NUMBER.")]
NewExpert = Annotated[
    str,
    typer.Argument(help="The expert to add: NAME for its newest ready version, or NAME@NUMBER."),
]
NewName = Annotated[
    str | None,
    typer.Option(help="Name of the new mix. Default: a new version of the same mix."),
]
RevisionFields = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change finetune.FIELD of the preset, gates.FIELD of the base mix, or compress.FIELD:"
        " for instance finetune.new_share=0.7 or compress.min_fdt_75=24. Repeat it for more"
        " fields. Everything else stays as in the base mix.",
    ),
]
