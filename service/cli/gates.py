"""Read what the gate of a mix measured, overrule it, and verify what was published."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.cli.options import NAMED, Page
from service.cli.paths import check_new_file, is_path

app = typer.Typer()
command = partial(app.command, rich_help_panel="Gates")


@command()
def report(
    mix: Annotated[str, typer.Argument(metavar="MIX", help=f"A mix that was gated: {NAMED}.")],
    json: Annotated[
        Path | None,
        typer.Option(help="Write the report to this file, byte for byte as it is signed."),
    ] = None,
    html: Page = None,
) -> None:
    """Print what the gate of a mix measured, stage by stage; ends with 0 only if it passed."""
    import hashlib

    from registry.checkpoints.manifests import canonical_json
    from service.client.local import connect
    from service.reports.mix_comparison import MixComparison
    from service.terminal import console, gate_tables
    from service.terminal.mix_progress import retention_note

    check_new_file(json)
    check_new_file(html)
    with connect() as client:
        version = client.mix(mix)
        report = client.gate_report(version)
    content = canonical_json(report.model_dump(mode="json"))
    if json is not None:
        json.write_bytes(content)
    if html is not None:
        from service.reports import gate_page

        digest = hashlib.sha256(content).hexdigest()
        html.write_text(gate_page.html(report, ref=version.ref, digest=digest))
    console.print_comparison(MixComparison.of(report))
    console.print_gate(report)
    gate_tables.print_metrics(report)
    if note := retention_note(version):
        console.console.print(note)
    if not report.passed:
        sys.exit(1)


@command()
def override(
    mix: Annotated[
        str, typer.Argument(metavar="MIX", help="A mix whose gate failed: NAME@NUMBER.")
    ],
    waive: Annotated[
        list[str],
        typer.Option(
            metavar="DOMAIN:METRIC",
            help="A limit that the mix missed, as the gate names it. Repeat it for each limit.",
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why the mix may be used nevertheless.")],
) -> None:
    """Publish a mix whose gate failed. Your name, the limits and the reason are signed with it."""
    from assembler.mixes.waivers import Waiver
    from service.client.local import connect
    from service.terminal.console import console
    from service.terminal.mix_progress import watch_deployment

    scope = [Waiver.parse(text) for text in waive]
    with connect() as client:
        version = client.override(client.mix(mix), scope=scope, reason=reason)
        console.print(f"{version.ref} is published against its gate: {reason}")
        if version.deploy:
            watch_deployment(client, version, client.deployment_of(version))


@command()
def verify(
    version: Annotated[
        str,
        typer.Argument(metavar="MIX", help=f"A published mix: {NAMED}; or an exported folder."),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            help="The public key that must have signed the mix, in hexadecimal. Default: the key of"
            " the running service; for a folder any key."
        ),
    ] = None,
) -> None:
    """Check a published mix against its signature; ends with 0 only if every check holds.

    It hashes everything again: tensors and files, the gate report, the recipe, the provenance.
    """
    from registry.blobs import blob_stores
    from registry.ingest.folder_contents import check_folder
    from service.client.local import connect
    from service.reports import verification
    from service.terminal.console import copying, print_rows

    folder = Path(version)
    if is_path(version):
        check_folder(folder)
        num_bytes = sum(file.stat().st_size for file in folder.iterdir())
        with copying(version, num_bytes=num_bytes) as on_bytes:
            checks = verification.check_folder(folder, trusted_key=key, on_bytes=on_bytes)
    else:
        with connect() as client:
            attestation = client.attestation(client.mix(version))
            key = key or client.signing_key()
        store = blob_stores.store()
        num_bytes = verification.num_bytes(attestation, store)
        with copying(version, num_bytes=num_bytes) as on_bytes:
            checks = verification.check_version(
                attestation, store, trusted_key=key, on_bytes=on_bytes
            )
    print_rows(
        ("", "holds", ""),
        [(check.title, "yes" if check.holds else "NO", check.detail) for check in checks],
    )
    if not all(check.holds for check in checks):
        sys.exit(1)


@command()
def schema(
    name: Annotated[str, typer.Argument(help="policy, gate-report or divergence-report.")],
) -> None:
    """Print the JSON Schema of a document that nexusmix reads or writes."""
    from registry.errors import NotFound
    from service.json_schemas import SCHEMAS
    from service.terminal.console import console

    if name not in SCHEMAS:
        raise NotFound(f"no schema {name!r}; there are {', '.join(SCHEMAS)}")
    console.print_json(data=SCHEMAS[name].model_json_schema())
