"""Plan a mix: its problems and warnings, or its size, time and memory. Nothing is changed.

A plan reads rows, manifests, the beginning of documents, the domain embeddings and their center.
"""

import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import psutil
from sqlalchemy.orm import Session

from assembler.assembly.blueprint import Blueprint
from assembler.assembly.inputs import MixInputs
from assembler.mixes import mixes
from assembler.mixes.new_mix import MixSpec, ResolvedRequest
from assembler.mixes.selection import Member
from assembler.planning import plan_warnings, time_estimates
from assembler.planning.plan_data import Estimate, Plan, PlanWarning, Size, StepPlan
from assembler.planning.resource_estimates import StepResources
from assembler.planning.time_estimates import RESOURCES, Observations
from assembler.routing.router_rows import STATES_CENTER, VECTORS_CENTER
from registry import licenses
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.numpy_tensors import Floats
from registry.settings import settings


def plan(session: Session, blobs: BlobStore, spec: MixSpec) -> Plan:
    """Plan what `mixes.request` would make of the same request.

    Problems of the request are returned, never raised.
    """
    resolved = spec.read(session, blobs)
    owners = _licenses(resolved)
    about = Plan(
        name=resolved.name,
        family=None if resolved.family is None else resolved.family.name,
        experts=resolved.experts,
        problems=resolved.problems,
        warnings=tuple(
            PlanWarning(kind="license", detail=detail) for detail in licenses.concerns(owners)
        ),
    )
    blueprint = resolved.blueprint
    if blueprint is None:
        return about
    size = _size(blueprint, time_estimates.observe(session, blobs))
    warnings = (*_warnings(resolved.members, blueprint, size, blobs), *about.warnings)
    same = mixes.find_same(session, resolved.name, blueprint.recipe)
    existing = None if same is None else mixes.ref_of(same)
    license = licenses.combine(owners.values())
    changes = {"size": size, "warnings": warnings, "existing": existing, "license": license}
    return about.model_copy(update=changes)


def _licenses(resolved: ResolvedRequest) -> dict[str, str]:
    """Return the license of each expert by its name, and of the seed."""
    owners = {member.name: member.version.license for member in resolved.members}
    return owners if resolved.family is None else {"the seed": resolved.family.license} | owners


def _size(blueprint: Blueprint, observations: Observations) -> Size:
    recipe, mix = blueprint.recipe, blueprint.mix
    resources = {step: RESOURCES[step](blueprint) for step in time_estimates.steps_of(recipe)}
    steps = tuple(
        _step_plan(step, needed, time_estimates.estimate(step, needed.work, observations[step]))
        for step, needed in resources.items()
    )
    return Size(
        num_parameters=mix.num_parameters,
        num_active_parameters=mix.num_active_parameters,
        num_bytes=blueprint.num_bytes,
        finetune_tokens=recipe.finetune.tokens,
        disk_needed=sum(step.bytes_kept for step in steps) + max(s.bytes_scratch for s in steps),
        disk_free=_disk_free(),
        steps=steps,
    )


def _step_plan(step: str, resources: StepResources, seconds: Estimate) -> StepPlan:
    return StepPlan(
        step=step,
        bytes_read=resources.read,
        bytes_kept=resources.kept,
        bytes_scratch=resources.scratch,
        memory=resources.memory,
        memory_per_process=resources.memory_per_process,
        seconds=seconds,
    )


def _warnings(
    members: Sequence[Member], blueprint: Blueprint, size: Size, blobs: BlobStore
) -> Iterator[PlanWarning]:
    if blueprint.projection is not None:
        inputs = blueprint.inputs
        centered_LNM = _centered_domains(inputs, blueprint.projection, blobs)
        yield from plan_warnings.of_domains(inputs.recipe.domains, centered_LNM)
    yield from plan_warnings.of_experts(members, blueprint.seed, blueprint.recipe)
    yield from plan_warnings.of_chat(members, blueprint.seed, blobs)
    yield from plan_warnings.of_documents(members, blueprint.recipe, blobs)
    yield from plan_warnings.of_machine(
        memory={step.step: step.memory for step in size.steps},
        total_memory=psutil.virtual_memory().total,
        disk_needed=size.disk_needed,
        disk_free=size.disk_free,
    )


def _centered_domains(inputs: MixInputs, projection: Manifest, blobs: BlobStore) -> Floats:
    """Return the centered domain embeddings that routers see [L, N, M]."""
    if inputs.recipe.embeds_with_encoder:
        center_E = numpy_tensors.read(blobs, projection.tensors[VECTORS_CENTER])
        return np.array(inputs.vectors, np.float32)[None] - center_E
    center_LD = numpy_tensors.read(blobs, projection.tensors[STATES_CENTER])
    centered_NLD: Floats = inputs.parts(blobs).states[:, :, 0] - center_LD
    return centered_NLD.swapaxes(0, 1)


def _disk_free() -> int:
    folder = settings().home
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
