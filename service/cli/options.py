"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

Report = Annotated[
    Path | None, typer.Option(help="Write all figures and stage times to this file, as JSON.")
]
Page = Annotated[
    Path | None,
    typer.Option(help="Write a page with survival curves and examples to this file."),
]
