"""A version of a mix as its page shows it: progress, loss curve, gate report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from assembler.mixes import job_events, mix_state, mixes, overrides, retention
from assembler.mixes.waivers import Override
from assembler.recipes.recipe import Recipe
from assembler.tables import FINAL_STATES, JobEvent, MixState, MixVersion
from engine.compression.int8_curve import Curve
from engine.gates.mix_gate import GateReport
from engine.serving import deployments, model_routes
from engine.serving.tables import Deployment, DeploymentState
from engine.vllm_server.engine_options import DEFAULT
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import artifacts
from registry.checkpoints import manifests
from registry.checkpoints.exports import file_sizes
from registry.errors import NotFound
from service.quantities import duration
from service.reports.mix_comparison import MixComparison
from service.ui import preset_views, revision_views, routing_views
from service.ui.forms import OptionsForm
from service.ui.preset_views import PresetView
from service.ui.revision_views import RevisionChoices
from service.ui.routing_views import Matrix, Shares

StepState = Literal["waiting", "running", "done", "stopped"]

STEPS = {
    "assemble": "Assemble",
    "finetune": "Finetune",
    "compress": "Compress",
    "gate": "Gate",
    "publish": "Publish",
    "deploy": "Deploy",
}
# States in which a deployment stays until somebody changes it.
AT_REST = (
    DeploymentState.READY,
    DeploymentState.ASLEEP,
    DeploymentState.STOPPED,
    DeploymentState.FAILED,
)


@dataclass(frozen=True)
class Step:
    """A step of making a mix."""

    title: str
    state: StepState
    seconds: float | None


@dataclass(frozen=True)
class Progress:
    """Progress of the running step; `share` is None when its length is not known."""

    share: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class MixView:
    """Everything on the page of a mix.

    `serving` is the state of its deployment, which may be that of a preview; it answers as `model`.
    `settled` means that nothing changes by itself any more. `has_published` means that some version
    of the mix is published. `can_retry` means that this one can go on from its last good step.
    `changed` are the fields that differ from the preset, as FIELD=VALUE. `chain` are the versions
    that it was made from, the nearest first. `choices` are the changes that can be requested, None
    if there are none. `curve` has the tokens and the losses of the finetune. `can_deploy` means
    that it is published and not served. `options` are those of its engine, in a form that changes
    them; None while they cannot be changed. `running_with` lists those that are not defaults.
    `files` are those that can be downloaded, with their bytes.
    """

    ref: str
    name: str
    number: int
    state: MixState
    serving: DeploymentState | None
    is_preview: bool
    model: str
    has_published: bool
    is_over: bool
    settled: bool
    can_retry: bool
    error: str | None
    kept_until: datetime | None
    is_kept: bool
    created_at: datetime
    recipe: Recipe
    preset: PresetView
    changed: tuple[str, ...]
    chain: tuple[str, ...]
    has_provenance: bool
    choices: RevisionChoices | None
    steps: tuple[Step, ...]
    progress: Progress | None
    curve: tuple[list[int], list[float]]
    shares: Shares | None
    messages: tuple[JobEvent, ...]
    compression: Curve | None
    report: GateReport | None
    override: Override | None
    comparison: MixComparison | None
    routing: list[Matrix]
    can_deploy: bool
    options: OptionsForm | None
    running_with: list[str]
    files: Mapping[str, int]


def view(session: Session, blobs: BlobStore, version: MixVersion) -> MixView:
    """Return a version of a mix for its page."""
    events = job_events.milestones(session, version.job_id)
    report = _report(blobs, version)
    deployment = _deployment(session, version)
    serving = None if deployment is None else deployment.state
    is_over = version.state in FINAL_STATES
    awaits_serving = version.state is MixState.SUCCEEDED and version.deploy
    settled = is_over and (not awaits_serving if serving is None else serving in AT_REST)
    recipe = Recipe.model_validate(version.recipe)
    metrics = job_events.sampled_metrics(session, version.job_id)
    return MixView(
        ref=f"{version.mix.name}@{version.number}",
        name=version.mix.name,
        number=version.number,
        state=version.state,
        serving=serving,
        is_preview=deployment is not None and deployment.is_preview,
        model=_model(session, version, deployment),
        has_published=mixes.is_published(session, version.mix.name),
        is_over=is_over,
        settled=settled,
        can_retry=mix_state.can_retry(version),
        error=version.error,
        kept_until=version.kept_until,
        is_kept=retention.is_kept(version),
        created_at=version.created_at,
        recipe=recipe,
        preset=preset_views.view(recipe.preset),
        changed=preset_views.changed(recipe),
        chain=tuple(revision_views.bases(session, recipe)),
        has_provenance=_has_provenance(session, version),
        # Before that the page is replaced again and again, and a form would lose its input.
        choices=revision_views.choices(session, version) if settled else None,
        steps=tuple(_steps(version, events)),
        progress=_progress(version.progress),
        curve=_curve(metrics),
        shares=routing_views.shares(recipe, metrics),
        messages=tuple(events),
        compression=_compression(blobs, version),
        report=report,
        override=overrides.read(version, blobs),
        comparison=None if report is None else MixComparison.of(report),
        routing=[] if report is None else routing_views.matrices(report),
        can_deploy=version.artifact_id is not None and serving in (None, DeploymentState.FAILED),
        options=_options(version, deployment) if settled else None,
        running_with=[] if deployment is None else deployment.engine_options.listed(),
        # Sizes are asked of the store, so not while the page follows the mix.
        files=_files(session, blobs, version) if settled else {},
    )


def _options(version: MixVersion, deployment: Deployment | None) -> OptionsForm | None:
    """Return the form for the options of a published version, None for others."""
    if version.artifact_id is None or (deployment is not None and deployment.is_preview):
        return None
    return OptionsForm.of(DEFAULT if deployment is None else deployment.engine_options)


def _report(blobs: BlobStore, version: MixVersion) -> GateReport | None:
    if version.gate_report_digest is None:
        return None
    return GateReport.model_validate_json(get_bytes(blobs, version.gate_report_digest))


def _files(session: Session, blobs: BlobStore, version: MixVersion) -> dict[str, int]:
    """Return the bytes of each file of a mix that is published, or refused and still kept."""
    digest = version.candidate_digest
    is_published = version.artifact_id is not None
    if digest is None or not (is_published or retention.is_kept(version)):
        return {}
    attestation = None
    if version.artifact_id is not None:
        attestation = artifacts.get(session, version.artifact_id).attestation_digest
    return file_sizes(manifests.load(blobs, digest), blobs, attestation_digest=attestation)


def _compression(blobs: BlobStore, version: MixVersion) -> Curve | None:
    if version.curve_digest is None:
        return None
    return Curve.model_validate_json(get_bytes(blobs, version.curve_digest))


def _has_provenance(session: Session, version: MixVersion) -> bool:
    if version.artifact_id is None:
        return False
    return artifacts.get(session, version.artifact_id).provenance_digest is not None


def _deployment(session: Session, version: MixVersion) -> Deployment | None:
    """Return the deployment of this version, None if another version has its name."""
    for name in (version.mix.name, mixes.ref_of(version)):
        try:
            found = deployments.find_by_model(session, name)
        except NotFound:
            continue
        is_own = (
            found.ref == mixes.ref_of(version)
            if found.is_preview
            else (found.artifact_id == version.artifact_id)
        )
        if is_own:
            return found
    return None


def _model(session: Session, version: MixVersion, deployment: Deployment | None) -> str:
    """Return the model name under which a version answers or will."""
    if deployment is not None and deployment.state is DeploymentState.READY:
        for name, row in model_routes.available(session).items():
            if row is deployment:
                return name
    return version.mix.name


def _steps(version: MixVersion, events: Sequence[JobEvent]) -> list[Step]:
    began = _times(events, "began")
    ended = _times(events, "ended")
    is_over = version.state in FINAL_STATES
    names = [name for name in STEPS if name != "deploy" or version.deploy]
    steps = []
    for name in names:
        state: StepState = "waiting"
        if name in ended:
            state = "done"
        elif name in began:
            state = "stopped" if is_over else "running"
        seconds = None
        if name in ended and name in began:
            seconds = (ended[name] - began[name]).total_seconds()
        steps.append(Step(STEPS[name], state, seconds))
    return steps


def _times(events: Sequence[JobEvent], phase: str) -> dict[str, datetime]:
    """Return when each step reached a phase, `began` or `ended`."""
    return {
        event.data["step"]: event.created_at
        for event in events
        if event.data.get("phase") == phase and "step" in event.data
    }


def _progress(progress: dict[str, Any] | None) -> Progress | None:
    """Describe the progress that a step recorded: steps, tokens, loss and time left, if known."""
    if not progress:
        return None
    if not progress.get("num_steps"):
        return Progress(share=None, text=progress["what"])
    step, num_steps = progress["step"], progress["num_steps"]
    parts = [f"{progress.get('what', 'step')}: {step} of {num_steps}"]
    if "num_tokens" in progress:
        parts.append(f"{progress['num_tokens']:,} tokens")
    if "loss" in progress:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("eta_seconds") is not None:
        parts.append(f"about {duration(progress['eta_seconds'])} left")
    return Progress(share=step / num_steps, text=", ".join(parts))


def _curve(points: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    return [p["num_tokens"] for p in points], [p["loss"] for p in points]
