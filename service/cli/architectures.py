"""List the base models that experts may be finetunes of."""

from functools import partial
from typing import Annotated

import typer

app = typer.Typer()
command = partial(app.command, rich_help_panel="Experts")

COLUMNS = (
    "base",
    "model_type",
    "attention",
    "norm before FFN",
    "positions",
    "network in vLLM",
    "int8",
    "stock layout of a mix",
)


@command()
def architectures(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the list as JSON, with what is refused and why.")
    ] = False,
) -> None:
    """List the base models whose checkpoints can be seeds and experts, and what works with each.

    All of them can be mixed, finetuned, gated, served and exported as a folder. `own` in the column
    of vLLM is its own network, `transformers` that of transformers in vLLM's layers. The stock
    layout is the class of other programs that can hold a mix exactly, where one is known.
    """
    import json

    from registry.bases.supported import BASES, REFUSED
    from service.terminal.console import console, print_rows

    listed = [
        {
            "title": base.title,
            "model_type": base.model_type,
            "architecture": base.architecture,
            "attention": base.attention_kind,
            "norm_before_ffn": base.ffn_norm is not None,
            "positions": list(base.ropes),
            "vllm": base.vllm,
            "mixed": True,
            "int8": base.int8,
            "stock_layout": base.stock_layout,
        }
        for base in BASES.values()
    ]
    if as_json:
        content = {"supported": listed, "refused": dict(REFUSED)}
        console.print(json.dumps(content, indent=2), soft_wrap=True)
        return
    rows = [
        (
            base.title,
            base.model_type,
            base.attention_kind,
            "yes" if base.ffn_norm else "no",
            ", ".join(base.ropes),
            base.vllm,
            "yes" if base.int8 else "no",
            base.stock_layout or "none known",
        )
        for base in BASES.values()
    ]
    print_rows(COLUMNS, rows)
    console.print("Refused: " + "; ".join(f"{name}, {why}" for name, why in REFUSED.items()))
