"""Follows a mix on the terminal while it is made, and its model while it starts."""

from assembler.tables import MixState
from engine.serving.tables import DeploymentState
from registry.errors import StepFailed
from service.client.client import Client
from service.reports.mix_comparison import MixComparison
from service.schemas.mixes import MixBody
from service.terminal import console
from service.terminal.compression_tables import print_curve


def watch_mix(client: Client, mix: MixBody) -> None:
    """Show the progress of a mix until it ends, then print what its gate measured.

    Raises StepFailed when the mix failed or was cancelled.
    """
    with console.watching(mix.ref) as show:
        mix = client.wait_for_mix(mix, on_event=show)
    if mix.state is not MixState.SUCCEEDED:
        reason = mix.error or "on request"
        note = retention_note(mix)
        raise StepFailed(f"{mix.ref} {mix.state}: {reason}{'; ' if note else ''}{note}")
    if mix.recipe["compress"]:
        print_curve(client.compression(mix))
    report = client.gate_report(mix)
    console.print_comparison(MixComparison.of(report))
    console.print_gate(report)
    if mix.deploy:
        watch_deployment(client, mix, model=mix.name)


def watch_deployment(client: Client, mix: MixBody, *, model: str) -> None:
    """Wait until a model answers. Raises StepFailed when it does not start."""
    with console.notes.status("starting its engine"):
        deployment = client.wait_for_deployment(model)
    if deployment.state is not DeploymentState.READY:
        raise StepFailed(f"{model} is not served: {deployment.error}")
    console.console.print(f"{mix.ref} answers as model {model!r}")


def retention_note(mix: MixBody) -> str:
    """Say what can be done with a refused mix, and until when; empty for other mixes."""
    if mix.kept_until is None:
        return ""
    until = console.moment(mix.kept_until)
    return f"until {until}: nexusmix report, export, gate or override {mix.ref}"
