"""Commands that talk to the running service, as any other client would."""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from assembler.mixes.overrides import Waiver
from assembler.planning.plan import Plan
from assembler.recipes import presets
from assembler.tables import MixState
from engine.serving.tables import DeploymentState
from registry import blobs, exports, manifests
from registry.document_files import JSON_LINES, as_json_lines, read_text
from registry.errors import Conflict, NotFound, StepFailed
from registry.manifests import canonical_json
from registry.settings import settings
from registry.tables import ProjectionState
from service import assignments
from service.assignments import as_text
from service.cli import compressing, policy_files
from service.client.client import Change, Client, Downloadable
from service.comparison import Comparison
from service.documents import SCHEMAS
from service.reports import gate_page, verification
from service.runtime import home, preparation
from service.runtime.background import connect
from service.schemas import MixBody
from service.terminal import console, gate_tables, plan_tables


def train_expert(documents: Path, target: Path, *, seed: Path | None, tokens: int | None) -> None:
    """Train in a child, from the demo's seed if none is given, and put the expert at `target`.

    Raises Conflict when `target` exists, StepFailed with the trainer's message.
    """
    if target.exists():
        raise Conflict(f"{target} exists already")
    with as_json_lines(documents) as json_lines, console.notes.status("seed") as status:
        _show_split(documents)
        if seed is None:
            seed = Path(preparation.run("seed", on_progress=status.update)["folder"])
        trained = preparation.run(
            "expert",
            str(seed.absolute()),
            str(json_lines.absolute()),
            "{}" if tokens is None else f'{{"tokens": {tokens}}}',
            on_progress=status.update,
        )
        shutil.copytree(trained["folder"], target)
    before, after = (trained["metrics"][f"{who}_perplexity"] for who in ("seed", "expert"))
    console.console.print(f"{target}: held-out perplexity {before:.2f} -> {after:.2f}")


def register(
    folder: Path,
    *,
    name: str,
    family: str,
    license: str,
    description: str,
    documents: Path | None,
) -> None:
    """Send a checkpoint, and wait until its domain is known; see `Client.register_expert`."""
    if documents is not None:
        _show_split(documents)
    with connect() as client, console.notes.status("reading the folder") as status:
        version = client.register_expert(
            folder,
            name=name,
            family=family,
            license=license,
            description=description,
            documents=documents,
            on_transfer=lambda t: status.update(console.transfer(t)),
        )
        status.update("embedding its domain")
        version = client.wait_for_embedding(version)
    console.console.print(f"{version.ref} is {version.state}")


def _show_split(path: Path) -> None:
    """Say what becomes of a plain text; nothing about JSON Lines, which say it themselves."""
    if path.suffix == JSON_LINES:
        return
    documents = read_text(path)
    num_held_out = sum(document.split == "held-out" for document in documents)
    console.console.print(f"{path}: {len(documents)} documents, {num_held_out} of them held out")


def mix(
    name: str,
    experts: Sequence[str],
    *,
    family: str,
    preset: str,
    tokens: int | None,
    policy: Path | None,
    fields: Sequence[str],
    deploy: bool,
    only_plan: bool,
) -> None:
    """Request and watch; Ctrl-C stops the watching only. Raises StepFailed when it is not made.

    With `only_plan` print what it would mean; ends with 1 when it cannot be made.
    """
    request = _changes(fields, tokens, policy) | {
        "name": name,
        "family": family,
        "experts": list(experts),
        "preset": preset,
        "deploy": deploy,
    }
    with connect() as client:
        if only_plan:
            _show(client.plan_mix(**request))
        else:
            _watch(client, client.request_mix(**request))


def revise(
    ref: str,
    change: Change,
    request: dict[str, Any],
    *,
    tokens: int | None,
    policy: Path | None,
    fields: Sequence[str],
    only_plan: bool,
) -> None:
    """Change a finished mix and watch, or plan that; see `mix`."""
    request = _changes(fields, tokens, policy) | request
    with connect() as client:
        base = client.mix(ref)
        if only_plan:
            _show(client.plan_revision(base, change, **request))
        else:
            _watch(client, client.revise_mix(base, change, **request))


def _changes(fields: Sequence[str], tokens: int | None, policy: Path | None) -> dict[str, Any]:
    """Of the request: what a policy's file says, and over it what single fields are set to."""
    changes = assignments.read(fields)
    if policy is not None:
        changes["gates"] = presets.merged(policy_files.read(policy), changes.get("gates", {}))
    if tokens is not None:
        changes["finetune"] = changes.get("finetune", {}) | {"tokens": tokens}
    return changes


def _show(planned: Plan) -> None:
    plan_tables.print_plan(planned)
    if planned.problems:
        sys.exit(1)


def _watch(client: Client, version: MixBody) -> None:
    with console.watching(version.ref) as show:
        version = client.wait_for_mix(version, on_event=show)
    if version.state is not MixState.SUCCEEDED:
        raise StepFailed(
            f"{version.ref} {version.state}: {version.error or 'on request'}{_kept(version)}"
        )
    if version.recipe["compress"]:
        compressing.show_curve(client.compression(version))
    report = client.gate_report(version)
    console.print_comparison(Comparison.of(report))
    console.print_gate(report)
    if version.deploy:
        _watch_deployment(client, version, model=version.name)


def _kept(version: MixBody) -> str:
    """How long what its gate has refused can be looked at; nothing of other versions."""
    if version.kept_until is None:
        return ""
    until = console.moment(version.kept_until)
    return f"; until {until}: nexusmix report, export, gate or override {version.ref}"


def _watch_deployment(client: Client, version: MixBody, *, model: str) -> None:
    with console.notes.status("starting its engine"):
        deployment = client.wait_for_deployment(model)
    if deployment.state is not DeploymentState.READY:
        raise StepFailed(f"{model} is not served: {deployment.error}")
    console.console.print(f"{version.ref} answers as model {model!r}")


def deploy(ref: str, *, model: str | None) -> None:
    """Have a published version served, and wait until it answers. Raises Conflict, StepFailed."""
    with connect() as client:
        version = client.mix(ref)
        deployment = client.deploy(version, model=model)
        _watch_deployment(client, version, model=deployment.model)


def undeploy(model: str) -> None:
    """Raises NotFound where nothing is served under that name."""
    with connect() as client:
        client.undeploy(model)
    console.console.print(f"{model} is served no more; what it has begun to answer is answered")


def learn(family: str, experts: Sequence[str], *, documents: Path | None) -> None:
    """Have the family's projection learned anew, and wait for it. Raises StepFailed."""
    with connect() as client, console.notes.status("learning the projection"):
        asked = client.request_projection(family, documents=documents, experts=experts)
        projection = client.wait_for_projection(asked)
    if projection.state is not ProjectionState.READY:
        raise StepFailed(f"the projection was not made: {projection.error}")
    console.console.print(f"{projection.family}@{projection.number} is ready; new mixes use it")


def show_policy(family: str) -> None:
    """As a file that `set` takes. Raises NotFound."""
    with connect() as client:
        sys.stdout.write(policy_files.text(client.policy(family)))


def set_policy(family: str, path: Path) -> None:
    """Raises NotFound, and InvalidInput with all that is wrong in the file."""
    changes = policy_files.read(path)
    with connect() as client:
        made = client.set_policy(family, changes)
    console.console.print(f"new mixes of {family} are gated by version {made.number} of its policy")


def export(ref: str, folder: Path, *, of: Downloadable) -> None:
    """Write a version's Hugging Face folder, past the service, straight from its store."""
    with connect() as client:
        files = client.files(ref, of=of)
    store = blobs.store()
    manifest = manifests.load(store, files.manifest_digest)
    num_bytes = sum(file.size for file in files.data)
    with console.copying(ref, num_bytes=num_bytes) as on_bytes:
        exports.export(
            manifest,
            store,
            folder,
            attestation_digest=files.attestation_digest,
            on_bytes=on_bytes,
        )
    console.console.print(f"{folder}: {num_bytes / 1e6:.0f} MB")


def report(ref: str, *, json_path: Path | None, html_path: Path | None) -> bool:
    """Print what a mix's gate has measured, write it, and say whether it passed. Raises NotFound
    of one that was not gated."""
    with connect() as client:
        version = client.mix(ref)
        found = client.gate_report(version)
    # The very bytes whose digest is signed.
    content = canonical_json(found.model_dump(mode="json"))
    if json_path is not None:
        json_path.write_bytes(content)
    if html_path is not None:
        digest = hashlib.sha256(content).hexdigest()
        html_path.write_text(gate_page.html(found, ref=version.ref, digest=digest))
    console.print_comparison(Comparison.of(found))
    console.print_gate(found)
    gate_tables.print_metrics(found)
    if kept := _kept(version):
        console.console.print(kept.removeprefix("; "), highlight=False)
    return found.passed


def print_schema(name: str) -> None:
    """Raises NotFound."""
    if name not in SCHEMAS:
        raise NotFound(f"no schema {name!r}; there are {', '.join(SCHEMAS)}")
    console.console.print_json(data=SCHEMAS[name].model_json_schema())


def override(ref: str, *, waived: Sequence[str], reason: str) -> None:
    """Publish what its gate has refused. Raises InvalidInput for other limits than it missed."""
    scope = [Waiver.parse(text) for text in waived]
    with connect() as client:
        version = client.override(client.mix(ref), scope=scope, reason=reason)
        console.console.print(f"{version.ref} is published against its gate: {reason}")
        if version.deploy:
            _watch_deployment(client, version, model=version.name)


def verify(version: str, *, key: str | None) -> bool:
    """Check a published version in this data folder's store, or an exported folder, and tell."""
    folder = Path(version)
    if folder.is_dir():
        size = sum(file.stat().st_size for file in folder.iterdir())
        with console.copying(version, num_bytes=size) as on_bytes:
            checks = verification.of_folder(folder, trusted_key=key, on_bytes=on_bytes)
    else:
        with connect() as client:
            attestation = client.attestation(client.mix(version))
            key = key or client.signing_key()
        store = blobs.store()
        size = verification.num_bytes(attestation, store)
        with console.copying(version, num_bytes=size) as on_bytes:
            checks = verification.of_version(attestation, store, trusted_key=key, on_bytes=on_bytes)
    console.print_rows(
        ("", "holds", ""),
        [(check.title, "yes" if check.holds else "NO", check.detail) for check in checks],
    )
    return all(check.holds for check in checks)


def reproduce(provenance: str, *, assembly_only: bool) -> bool:
    """Make a mix again from the blobs of this data folder, and say whether it is the same."""
    with (
        TemporaryDirectory(prefix="nexusmix-") as folder,
        console.notes.status("provenance") as status,
    ):
        path = Path(provenance)
        if not path.is_file():
            path = Path(folder) / "provenance.json"
            with connect() as client:
                path.write_text(json.dumps(client.provenance(client.mix(provenance))))
        stages = ["assembly"] if assembly_only else []
        report = preparation.run(
            "reproduce", str(path.absolute()), *stages, on_progress=status.update
        )
    for difference in report["differences"]:
        console.console.print(f"made elsewhere: {difference}")
    for stage in report["stages"]:
        outcome = "the same" if stage["same"] else f"differs from {stage['expected']}"
        console.console.print(f"{stage['name']}: {stage['made']}, {outcome}")
        for name in stage["differing"]:
            console.console.print(f"  {name} differs")
    same: bool = report["same"]
    return same


def list_experts() -> None:
    with connect() as client:
        rows = [(e.name, e.family, e.license, e.description) for e in client.experts()]
    console.print_rows(("expert", "family", "license", "description"), rows)


def list_mixes() -> None:
    with connect() as client:
        rows = [
            (
                m.ref,
                m.state.value,
                m.preset,
                m.base or "",
                ", ".join(m.recipe["experts"]),
                console.moment(m.created_at),
            )
            for m in client.mixes()
        ]
    console.print_rows(("mix", "state", "preset", "base", "experts", "requested"), rows)


def list_presets() -> None:
    with connect() as client:
        rows = [(p.name, p.description, _fields(p.changed)) for p in client.presets()]
    console.print_rows(("preset", "what it is for", f"other than {presets.DEFAULT}"), rows)


def _fields(changed: Mapping[str, Any]) -> str:
    """As `--set` takes them."""
    return "\n".join(f"{field}={as_text(value)}" for field, value in changed.items())


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
