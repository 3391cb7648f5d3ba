"""Compare models token by token, and what a mix's gate measured, signed and let through."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.cli.needs_server import needs_server
from service.cli.options import Page, Report

app = typer.Typer()
command = partial(app.command, rich_help_panel="Gates")

policy = typer.Typer(
    no_args_is_help=True, help="What the mixes of a family must reach to be published."
)
app.add_typer(policy, name="policy", rich_help_panel="Gates")


@command()
@needs_server
def gate(
    reference: Annotated[
        str,
        typer.Argument(
            help="A Hugging Face folder; NAME or NAME@NUMBER of a mix or an expert; or"
            " http://HOST:PORT/v1#MODEL, an OpenAI-compatible server (key: OPENAI_API_KEY)."
        ),
    ],
    candidate: Annotated[str, typer.Argument(help="What is held against it, named likewise.")],
    documents: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines: id, text, split, of which the held-out are read; those that one of"
            " the two brings along if not given."
        ),
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="Prefixes of each domain.")] = None,
    prefix_tokens: Annotated[int | None, typer.Option(help="Tokens of each prefix.")] = None,
    completion_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the reference adds to each.")
    ] = None,
    min_equal_share: Annotated[
        float | None, typer.Option(help="Share of tokens that the candidate predicts alike.")
    ] = None,
    min_fdt_25: Annotated[
        float | None, typer.Option(help="25th percentile of the first divergent token.")
    ] = None,
    min_fdt_50: Annotated[
        float | None, typer.Option(help="Median of the first divergent token.")
    ] = None,
    min_fdt_75: Annotated[
        float | None, typer.Option(help="75th percentile of the first divergent token.")
    ] = None,
    max_sdt: Annotated[
        float | None, typer.Option(help="Mean number of divergent tokens of a prefix.")
    ] = None,
    max_dppl_ratio: Annotated[
        float | None, typer.Option(help="Its perplexity over the reference's own, on that text.")
    ] = None,
    max_logprob_difference: Annotated[
        float | None,
        typer.Option(help="Mean difference of the tokens' log-probabilities, in nats."),
    ] = None,
    report: Report = None,
    html: Page = None,
) -> None:
    """Compare two models token by token; ends with 0 only if all that is asked is kept."""
    from service.cli import model_gate

    policy = {
        "prompts_per_domain": prompts,
        "prefix_tokens": prefix_tokens,
        "completion_tokens": completion_tokens,
        "min_equal_share": min_equal_share,
        "min_fdt_25": min_fdt_25,
        "min_fdt_50": min_fdt_50,
        "min_fdt_75": min_fdt_75,
        "max_sdt": max_sdt,
        "max_dppl_ratio": max_dppl_ratio,
        "max_logprob_difference": max_logprob_difference,
    }
    given = {field: value for field, value in policy.items() if value is not None}
    if not model_gate.gate(
        reference,
        candidate,
        documents=documents,
        policy=given,
        report_path=report,
        html_path=html,
    ):
        sys.exit(1)


@command()
def report(
    mix: Annotated[
        str, typer.Argument(metavar="MIX", help="A mix that was gated: NAME, or NAME@NUMBER.")
    ],
    json: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as it is signed.")
    ] = None,
    html: Page = None,
) -> None:
    """Show what a mix's gate has measured, stage by stage; ends with 0 only if it passed."""
    from service.cli import commands

    if not commands.report(mix, json_path=json, html_path=html):
        sys.exit(1)


@command()
def override(
    mix: Annotated[
        str, typer.Argument(metavar="MIX", help="A mix whose gate failed: NAME, or NAME@NUMBER.")
    ],
    waive: Annotated[
        list[str],
        typer.Option(
            metavar="DOMAIN:METRIC",
            help="A limit that was not kept, as the gate names it; once for each of them.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why it may be used all the same.")],
) -> None:
    """Publish a mix that its gate has refused; who did it, for what and why is signed with it."""
    from service.cli import commands

    commands.override(mix, waived=waive, reason=reason)


@command()
def verify(
    version: Annotated[
        str,
        typer.Argument(
            metavar="MIX", help="A published mix: NAME, or NAME@NUMBER; or an exported folder."
        ),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            help="The public key that must have signed it, in hexadecimal; the running service's if"
            " not given, and for a folder any."
        ),
    ] = None,
) -> None:
    """Check a published mix against what was signed of it; ends with 0 only if all of it holds.

    Signature, tensors and files, the report of its gate, recipe and lock: each is hashed anew.
    """
    from service.cli import commands

    if not commands.verify(version, key=key):
        sys.exit(1)


@policy.command("show")
def show_policy(
    family: Annotated[str, typer.Argument(help="The family whose new mixes it holds for.")],
) -> None:
    """Print the newest version, or the default where there is none, as a file for `set`."""
    from service.cli import commands

    commands.show_policy(family)


@policy.command("set")
def set_policy(
    family: Annotated[str, typer.Argument(help="The family whose new mixes it is to hold for.")],
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON; what it leaves out is as in the default.")
    ],
) -> None:
    """Give a family a new version of its policy; mixes that exist keep theirs."""
    from service.cli import commands

    commands.set_policy(family, file)


@command()
def schema(
    name: Annotated[str, typer.Argument(help="policy, gate-report or divergence-report.")],
) -> None:
    """Print the JSON Schema of a document that is written or read here."""
    from service.cli import commands

    commands.print_schema(name)
