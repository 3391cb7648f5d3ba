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

plan = typer.Typer(
    no_args_is_help=True,
    help="Say what `mix`, `extend`, `remove` or `replace` would mean, in the same words: all that"
    " is wrong, or what it reads, writes, needs and takes. Ends with 1 when it cannot be made.",
)
app.add_typer(plan, name="plan")

policy = typer.Typer(
    no_args_is_help=True, help="What the mixes of a family must reach to be published."
)
app.add_typer(policy, name="policy")


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
    from service import commands

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


@app.command()
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
    from service import commands

    commands.revise(
        ref,
        "extend",
        {"expert": expert, "name": name, "deploy": deploy},
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        only_plan=_only_plan(context),
    )


@app.command()
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
    from service import commands

    commands.revise(
        ref,
        "remove",
        {"expert": expert, "name": name, "deploy": deploy},
        tokens=tokens,
        policy=policy,
        fields=fields or [],
        only_plan=_only_plan(context),
    )


@app.command()
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
    from service import commands

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


@app.command()
def presets() -> None:
    """List the recipes that have a name: what each is for, and where it is not `nexus`."""
    from service import commands

    commands.list_presets()


@policy.command("show")
def show_policy(
    family: Annotated[str, typer.Argument(help="The family whose new mixes it holds for.")],
) -> None:
    """Print the newest version, or the default where there is none, as a file for `set`."""
    from service import commands

    commands.show_policy(family)


@policy.command("set")
def set_policy(
    family: Annotated[str, typer.Argument(help="The family whose new mixes it is to hold for.")],
    file: Annotated[
        Path, typer.Argument(help="YAML or JSON; what it leaves out is as in the default.")
    ],
) -> None:
    """Give a family a new version of its policy; mixes that exist keep theirs."""
    from service import commands

    commands.set_policy(family, file)


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
def compress(
    source: Annotated[
        str,
        typer.Argument(
            metavar="MIX_OR_FOLDER",
            help="A published mix: NAME, or NAME@NUMBER; or a dense model's folder.",
        ),
    ],
    min_fdt_75: Annotated[
        float | None,
        typer.Option(help="Three of four texts may diverge before this token, not earlier."),
    ] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Zeros in place of int8: the share of all weights of attention and FFNs, as far"
            " as --min-fdt-75 allows."
        ),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of all tensors together.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="What will serve int8: cpu, cpu-vnni (has int8 instructions) or gpu."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="What decides: fdt, dppl; of int8 also perplexity or order, the network's own;"
            " of zeros also uniform, the same share of each matrix."
        ),
    ] = "fdt",
    beam_width: Annotated[
        int | None, typer.Option(help="Configurations kept in each round, 1 if not given.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="In how many steps all would be int8, 8 if not given.")
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="By how much each round raises the share of zeros, 0.1 if not given."),
    ] = None,
    retrain_tokens: Annotated[
        int | None,
        typer.Option(help="Of training text that what zeros leave learns from after each round."),
    ] = None,
    keep_zeros: Annotated[
        bool,
        typer.Option(
            "--keep-zeros",
            help="Leave in the attention and FFN columns of which only zeros are left: stock"
            " vLLM and transformers know no Llama without them.",
        ),
    ] = False,
    prompts: Annotated[
        int | None, typer.Option(help="Held-out prefixes that are compared, 16 if not given.")
    ] = None,
    documents: Annotated[
        Path | None,
        typer.Option(help="JSON Lines: id, text, split; documents.jsonl of the folder else."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="New folder, which stock vLLM loads if it is dense.")
    ] = None,
    expert: Annotated[
        bool, typer.Option("--expert", help="NAME is an expert's, not a mix's.")
    ] = False,
) -> None:
    """Make linear layers int8, as many as the first divergent token or a size asks, or with
    --sparsity set the smallest weights of each matrix to zero.

    Zeros are stored compactly in the service's store; a folder has them as numbers, for others.

    Prints the curve that the search came along; * marks the point that was written.
    """
    from service import compressing

    fields = {
        "min_fdt_75": min_fdt_75,
        "sparsity": sparsity,
        "max_bytes": max_bytes,
        "target": target,
        "by": by,
        "beam_width": beam_width,
        "rounds": rounds,
        "step": step,
        "retrain_tokens": retrain_tokens,
        "keep_zeros": keep_zeros or None,
        "prompts": prompts,
    }
    compressing.compress(source, fields, documents=documents, output=output, is_expert=expert)


@app.command()
def deploy(
    mix: Annotated[
        str,
        typer.Argument(metavar="MIX", help="A published mix: NAME, its newest, or NAME@NUMBER."),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="The name that applications ask for; the mix's own if not given."),
    ] = None,
) -> None:
    """Serve a published mix; what serves the name now goes on until it is ready.

    An earlier NAME@NUMBER brings that version back.
    """
    from service import commands

    commands.deploy(mix, model=model)


@app.command()
def undeploy(
    model: Annotated[str, typer.Argument(help="The name that applications ask for.")],
) -> None:
    """End the serving of a model name, once what it has begun to answer is answered."""
    from service import commands

    commands.undeploy(model)


@app.command()
def report(
    mix: Annotated[
        str, typer.Argument(metavar="MIX", help="A mix that was gated: NAME, or NAME@NUMBER.")
    ],
    json: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as it is signed.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with survival curves and examples to this file."),
    ] = None,
) -> None:
    """Show what a mix's gate has measured, stage by stage; ends with 0 only if it passed."""
    from service import commands

    if not commands.report(mix, json_path=json, html_path=html):
        sys.exit(1)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="policy, gate-report or divergence-report.")],
) -> None:
    """Print the JSON Schema of a document that is written or read here."""
    from service import commands

    commands.print_schema(name)


@app.command()
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
    from service import commands

    commands.override(mix, waived=waive, reason=reason)


@app.command()
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
    from service import commands

    if not commands.verify(version, key=key):
        sys.exit(1)


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
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with survival curves and examples to this file."),
    ] = None,
) -> None:
    """Compare two models token by token; ends with 0 only if all that is asked is kept."""
    from service import model_gate

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


@app.command()
def experts() -> None:
    """List the registered experts."""
    from service import commands

    commands.list_experts()


@app.command()
def mixes() -> None:
    """List the versions of all mixes, and what each was made from."""
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
    """Compile the lock files anew."""
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
