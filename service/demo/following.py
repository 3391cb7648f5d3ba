"""Follows a mix as one stage of a long command, and measures its steps."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from assembler.tables import MixState
from engine.serving.tables import DeploymentState
from registry.errors import StepFailed
from service.client.client import Client
from service.schemas.mixes import EventBody, MixBody
from service.terminal.stages import Stage, Stages


def make(stage: Stage, client: Client, mix: MixBody) -> tuple[MixBody, dict[str, float]]:
    """Wait for a requested mix; return it with the seconds of each step.

    The steps of a mix that exists already are those of an earlier run. Raises StepFailed when the
    mix fails.
    """
    began: dict[str, datetime] = {}
    seconds: dict[str, float] = {}

    def follow(event: EventBody) -> None:
        step, phase = event.data.get("step"), event.data.get("phase")
        if phase == "began":
            began[str(step)] = event.created_at
        elif phase == "ended":
            seconds[str(step)] = (event.created_at - began[str(step)]).total_seconds()
        stage.say(_summary(event.data) if event.type == "metrics" else event.message)

    mix = client.wait_for_mix(mix, on_event=follow)
    if mix.state is not MixState.SUCCEEDED:
        raise StepFailed(f"{mix.ref} {mix.state}: {mix.error}")
    steps = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
    stage.result = f"{mix.ref} ({steps})"
    return mix, seconds


def await_deployment(stages: Stages, client: Client, mix: MixBody) -> None:
    """Wait until the mix answers as a model. Raises StepFailed when it does not."""
    with stages.stage("Deployment") as stage:
        deployment = client.wait_for_deployment(client.deployment_of(mix))
        if deployment.state is not DeploymentState.READY:
            reason = deployment.error or f"its deployment is {deployment.state}"
            raise StepFailed(f"{mix.ref} is not served: {reason}")
        stage.result = f"model {deployment.model!r}"


def _summary(data: Mapping[str, Any]) -> str:
    return f"step {data['step']} of {data['num_steps']}, loss {data['loss']:.3f}"
