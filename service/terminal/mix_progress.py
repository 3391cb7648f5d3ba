"""Follows a mix on the terminal while it is made, and its model while it starts."""

from assembler.tables import MixState
from engine.serving.tables import DeploymentState
from registry.errors import StepFailed
from service.client.client import Client
from service.reports.mix_comparison import MixComparison
from service.schemas.deployments import DeploymentBody
from service.schemas.mixes import MixBody
from service.terminal import console
from service.terminal.compression_tables import print_curve
from service.terminal.printable import printable


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
        watch_deployment(client, mix, client.deployment_of(mix))


def watch_deployment(client: Client, mix: MixBody, deployment: DeploymentBody) -> None:
    """Wait until this deployment of a mix answers. Raises StepFailed when it does not."""
    with console.working("starting its engine"):
        deployment = client.wait_for_deployment(deployment)
    if deployment.state is not DeploymentState.READY:
        raise StepFailed(f"{mix.ref} is not served: {_reason(client, deployment)}")
    console.console.print(f"{mix.ref} answers as model {deployment.model!r}")


def find_mix(client: Client, ref: str) -> MixBody:
    """Return the version of a mix that `ref` means; warn of a version that is not published."""
    mix = client.mix(ref)
    if mix.artifact is None:
        reason = f": {mix.error}" if mix.error else ""
        console.notes.print(printable(f"warning: {mix.ref} is {mix.state}, not published{reason}"))
    return mix


def _reason(client: Client, deployment: DeploymentBody) -> str:
    """Say why a deployment does not answer."""
    model = deployment.model
    if deployment.error is not None:
        return deployment.error
    newest = next(client.deployments(model=model), deployment)
    if newest.id != deployment.id:
        return f"deployment {newest.id} has taken the model name {model!r} meanwhile"
    return f"model {model!r} was stopped meanwhile"


def retention_note(mix: MixBody) -> str:
    """Say what can be done with a refused mix, and until when; empty for other mixes."""
    if mix.kept_until is None:
        return ""
    until = console.moment(mix.kept_until)
    return f"until {until}: nexusmix report, export, gate or override {mix.ref}"
