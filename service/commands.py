"""Commands that talk to the running service, as any other client would."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from assembler.tables import MixState
from engine.tables import DeploymentState
from registry.errors import Conflict, StepFailed
from registry.settings import settings
from service import console, home, preparation
from service.background import connect


def train_expert(documents: Path, target: Path, *, seed: Path | None, tokens: int | None) -> None:
    """Train in a child, from the demo's seed if none is given, and put the expert at `target`.

    Raises Conflict when `target` exists, StepFailed with the trainer's message.
    """
    if target.exists():
        raise Conflict(f"{target} exists already")
    with console.notes.status("seed") as status:
        if seed is None:
            seed = Path(preparation.run("seed", on_progress=status.update)["folder"])
        trained = preparation.run(
            "expert",
            str(seed.absolute()),
            str(documents.absolute()),
            "{}" if tokens is None else f'{{"tokens": {tokens}}}',
            on_progress=status.update,
        )
        shutil.copytree(trained["folder"], target)
    before, after = (trained["metrics"][f"{who}_perplexity"] for who in ("seed", "expert"))
    console.console.print(f"{target}: held-out perplexity {before:.2f} -> {after:.2f}")


def register(folder: Path, *, name: str, family: str, licence: str, description: str) -> None:
    with connect() as client, console.notes.status("reading the folder") as status:
        version = client.register_expert(
            folder,
            name=name,
            family=family,
            licence=licence,
            description=description,
            on_transfer=lambda t: status.update(console.transfer(t)),
        )
        status.update("embedding its domain")
        version = client.wait_for_embedding(version)
    console.console.print(f"{version.ref} is {version.state}")


def mix(
    name: str, experts: Sequence[str], *, family: str, tokens: int | None, deploy: bool
) -> None:
    """Request and watch; Ctrl-C stops the watching only. Raises StepFailed when it is not made."""
    finetune = {} if tokens is None else {"tokens": tokens}
    with connect() as client:
        version = client.request_mix(
            name=name, family=family, experts=list(experts), finetune=finetune, deploy=deploy
        )
        with console.watching(version.ref) as show:
            version = client.wait_for_mix(version, on_event=show)
        if version.state is not MixState.SUCCEEDED:
            raise StepFailed(f"{version.ref} {version.state}: {version.error or 'on request'}")
        console.print_gate(client.gate_report(version))
        if deploy:
            with console.notes.status("starting its engine"):
                deployment = client.wait_for_deployment(name)
            if deployment.state is not DeploymentState.READY:
                raise StepFailed(f"{name} is not served: {deployment.error}")
            console.console.print(f"{version.ref} answers as model {name!r}")


def list_experts() -> None:
    with connect() as client:
        rows = [(e.name, e.family, e.licence, e.description) for e in client.experts()]
    console.print_rows(("expert", "family", "licence", "description"), rows)


def list_mixes() -> None:
    with connect() as client:
        rows = [
            (m.ref, m.state.value, ", ".join(m.recipe["experts"]), console.moment(m.created_at))
            for m in client.mixes()
        ]
    console.print_rows(("mix", "state", "experts", "requested"), rows)


def show_status() -> None:
    """Where the service runs and what it serves; ends with 1 when it does not run."""
    holder = home.holder(settings().home)
    if holder is None:
        console.console.print(f"nothing runs on {settings().home}")
        sys.exit(1)
    console.console.print(f"process {holder.pid} serves {settings().home} at {holder.address}")
    with connect() as client:
        rows = [(d.model, d.state.value, d.error or "") for d in client.deployments()]
    console.print_rows(("model", "state", "error"), rows)
