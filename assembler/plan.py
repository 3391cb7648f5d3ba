"""What a request for a mix would mean, told before anything is done.

Only rows and manifests are read, and of all tensors just domain embeddings and their centre.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler import cautions, compatibility, durations, wishes
from assembler.cautions import Caution
from assembler.compatibility import Selection
from assembler.durations import FOOTPRINTS, Estimate, Observations
from assembler.folding import STATES_CENTER, VECTORS_CENTER
from assembler.footprints import Blueprint, Footprint
from assembler.materials import Materials, gather
from assembler.parts import has_part
from assembler.pinning import MIN_EXPERTS
from assembler.recipe import Preset, Recipe
from assembler.tables import Mix, MixState, MixVersion
from registry import arrays, licences, projections
from registry import experts as expert_rows
from registry.arrays import Floats
from registry.blobs import BlobStore
from registry.errors import Problem
from registry.manifests import Manifest
from registry.settings import settings


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepPlan(_Data):
    """What one step needs. Bytes of tensors; memory and time are estimates."""

    step: str
    bytes_read: int
    bytes_kept: int = Field(description="Written and kept: what is new.")
    bytes_scratch: int = Field(description="Written, and gone when the step ends.")
    memory: int = Field(description="Bytes that are this step's own, about.")
    seconds: Estimate

    @classmethod
    def of(cls, step: str, footprint: Footprint, seconds: Estimate) -> Self:
        return cls(
            step=step,
            bytes_read=footprint.read,
            bytes_kept=footprint.kept,
            bytes_scratch=footprint.scratch,
            memory=footprint.memory,
            seconds=seconds,
        )


class Size(_Data):
    """The mix, and what making and serving it takes."""

    num_parameters: int
    num_active_parameters: int = Field(description="Those that one token meets.")
    num_bytes: int = Field(description="Of all its tensors, most of which others have too.")
    finetune_tokens: int
    disk_needed: int = Field(description="All that is kept, and the largest scratch.")
    disk_free: int
    steps: tuple[StepPlan, ...]


class Plan(_Data):
    """A request as it would be carried out; with problems it would be refused."""

    name: str
    family: str
    experts: tuple[str, ...] = Field(description="Those that were found, pinned.")
    problems: tuple[Problem, ...] = Field(description="All of them, pointing into the request.")
    warnings: tuple[Caution, ...] = ()
    licence: str | None = Field(default=None, description="Of the result, as SPDX has it.")
    existing: str | None = Field(
        default=None, description="The version that was made from just this recipe already."
    )
    size: Size | None = Field(default=None, description="None when there are problems.")


def plan(
    session: Session,
    blobs: BlobStore,
    *,
    name: str,
    family: str,
    experts: Sequence[str],
    preset: Preset = "nexus",
    assembly: Mapping[str, Any] | None = None,
    finetune: Mapping[str, Any] | None = None,
    gates: Mapping[str, Any] | None = None,
    base: str | None = None,
) -> Plan:
    """What `mixes.request` would do with the same arguments; with a `base`, a finished mix version
    `name@number`, what changing it to have just `experts` would. Changes nothing, and never raises
    for what is wrong with the request."""
    wish, problems = wishes.read(
        session,
        family=family,
        preset=preset,
        assembly=assembly,
        finetune=finetune,
        gates=gates,
        base=base,
    )
    found = compatibility.select(
        session,
        blobs,
        name=name,
        family=family,
        experts=experts,
        needs_projection=wish.assembly.needs_projection and wish.base is None,
        kept=() if wish.base is None else wish.base.experts,
    )
    problems += found.problems
    refs = tuple(expert_rows.ref_of(member.version) for member in found.members)
    # Where some were not found, what was asked for still tells how many there would be.
    asked = tuple(experts) if problems else refs
    materials = blueprint = None
    if len(asked) >= MIN_EXPERTS:
        projection = None if found.projection is None else projections.ref_of(found.projection)
        recipe = wish.recipe(asked, projection=projection)
        problems += recipe.contradictions()
        if not problems:
            materials = gather(session, recipe)
            blueprint = Blueprint.of(materials, blobs)
            problems += _untrainable(blueprint)
    owners = _licences(found)
    about = Plan(
        name=name,
        family=family,
        experts=refs,
        problems=tuple(problems),
        warnings=tuple(
            Caution(kind="licence", detail=detail) for detail in licences.concerns(owners)
        ),
        licence=licences.combined(owners.values()) if owners else None,
    )
    if problems or materials is None or blueprint is None:
        return about
    size = _size(blueprint, durations.observe(session, blobs))
    warnings = (*_cautions(found, materials, blueprint, size, blobs), *about.warnings)
    existing = _existing(session, name, blueprint.recipe)
    return about.model_copy(update={"size": size, "warnings": warnings, "existing": existing})


def _untrainable(blueprint: Blueprint) -> Iterator[Problem]:
    training = blueprint.recipe.finetune
    if training.num_steps and not has_part(blueprint.mix, training.train):
        yield Problem("/finetune/train", f"this mix has no part {training.train!r}")


def _licences(found: Selection) -> dict[str, str]:
    """By who brings them."""
    owners = {member.name: member.version.expert.licence for member in found.members}
    return owners if found.family is None else {"the seed": found.family.licence} | owners


def _size(blueprint: Blueprint, observations: Observations) -> Size:
    recipe, mix = blueprint.recipe, blueprint.mix
    footprints = {
        step: footprint(blueprint)
        for step, footprint in FOOTPRINTS.items()
        if step != "finetune" or recipe.finetune.num_steps
    }
    steps = tuple(
        StepPlan.of(step, own, durations.estimate(step, own.work, observations[step]))
        for step, own in footprints.items()
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


def _cautions(
    found: Selection,
    materials: Materials,
    blueprint: Blueprint,
    size: Size,
    blobs: BlobStore,
) -> Iterator[Caution]:
    if blueprint.projection is not None:
        centred_LNM = _centred_domains(materials, blueprint.projection, blobs)
        yield from cautions.of_domains(materials.recipe.domains, centred_LNM)
    yield from cautions.of_experts(found.members, blueprint.seed, blueprint.recipe)
    yield from cautions.of_documents(found.members, blueprint.recipe, blobs)
    yield from cautions.of_machine(
        memory={step.step: step.memory for step in size.steps},
        total_memory=psutil.virtual_memory().total,
        disk_needed=size.disk_needed,
        disk_free=size.disk_free,
    )


def _centred_domains(materials: Materials, projection: Manifest, blobs: BlobStore) -> Floats:
    """What the routers tell domains apart by [L, N, M]."""
    if materials.recipe.embeds_with_encoder:
        center_E = arrays.read(blobs, projection.tensors[VECTORS_CENTER])
        return np.array(materials.vectors, np.float32)[None] - center_E
    center_LD = arrays.read(blobs, projection.tensors[STATES_CENTER])
    centred_NLD: Floats = materials.states(blobs)[:, :, 0] - center_LD
    return centred_NLD.swapaxes(0, 1)


def _existing(session: Session, name: str, recipe: Recipe) -> str | None:
    version = session.scalar(
        select(MixVersion)
        .join(MixVersion.mix)
        .where(
            Mix.name == name,
            MixVersion.recipe_digest == recipe.digest,
            MixVersion.state.not_in((MixState.FAILED, MixState.CANCELLED)),
        )
        .order_by(MixVersion.number.desc())
        .limit(1)
    )
    return None if version is None else f"{name}@{version.number}"


def _disk_free() -> int:
    folder = settings().home
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
