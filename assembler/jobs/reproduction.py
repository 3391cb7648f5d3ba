"""Make a mix again from its provenance, outside the store, and compare the results."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import ValidationError

from assembler.assembly.provenance import Environment, Provenance
from assembler.jobs import pipeline
from assembler.progress import OnMessage
from assembler.training.optimizer import Progress
from registry.blobs import overlay_blobs
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput, NotFound, Problem, pointer

MAX_NAMES = 20


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A repeated step. `differing` names at most MAX_NAMES tensors or parts that differ."""

    name: str
    expected: str
    made: str
    differing: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        return self.expected == self.made


def read(data: bytes) -> Provenance:
    """Read a provenance from JSON. Raises InvalidInput."""
    try:
        return Provenance.model_validate_json(data)
    except ValidationError as error:
        problems = tuple(Problem(pointer(*e["loc"]), e["msg"]) for e in error.errors())
        raise InvalidInput("this is not the provenance of a mix", problems=problems) from error


def reproduce(
    provenance: Provenance,
    *,
    blobs: BlobStore,
    assembly_only: bool,
    on_progress: OnMessage,
) -> list[Stage]:
    """Assemble, finetune and compress again, and compare each step; nothing is kept.

    Raises NotFound with every blob that is missing.
    """
    _check_blobs(provenance, blobs)
    torch.set_num_threads(provenance.environment.num_threads)
    inputs = provenance.inputs(blobs)
    with overlay_blobs.beside(blobs) as aside, TemporaryDirectory(prefix="nexusmix-") as folder:
        on_progress("assembling")
        assembled = pipeline.assemble(inputs, aside)
        stages = [_stage("assemble", provenance.assembled, assembled, blobs)]
        if assembly_only:
            return stages
        made = assembled
        if provenance.finetuned is not None:
            made = pipeline.finetune(
                assembled,
                inputs,
                blobs=aside,
                checkpoint_path=Path(folder),
                on_progress=lambda progress: on_progress(_describe(progress)),
            )
            stages.append(_stage("finetune", provenance.finetuned, made, blobs))
        if provenance.compressed is not None:
            made, _ = pipeline.compress(made, inputs, blobs=aside, on_progress=on_progress)
            stages.append(_stage("compress", provenance.compressed, made, blobs))
    return stages


def report(provenance: Provenance, stages: list[Stage]) -> dict[str, Any]:
    """Return the stages as JSON, with the differences between this environment and the first."""
    return {
        "same": all(stage.is_same for stage in stages),
        "stages": [asdict(stage) | {"same": stage.is_same} for stage in stages],
        "differences": provenance.environment.differences(Environment.here()),
    }


def _stage(name: str, expected: str, made: Manifest, blobs: BlobStore) -> Stage:
    differing: tuple[str, ...] = ()
    if made.digest != expected:
        differing = tuple(_differing(manifests.load(blobs, expected), made))[:MAX_NAMES]
    return Stage(name=name, expected=expected, made=made.digest, differing=differing)


def _differing(one: Manifest, other: Manifest) -> list[str]:
    names = [
        name
        for name in [*one.tensors, *(other.tensors.keys() - one.tensors.keys())]
        if one.tensors.get(name) != other.tensors.get(name)
    ]
    parts = {"config": (one.config, other.config), "files": (one.files, other.files)}
    return [*(part for part, (a, b) in parts.items() if a != b), *names]


def _check_blobs(provenance: Provenance, blobs: BlobStore) -> None:
    roots = [provenance.seed, *provenance.experts, *(d for _, d in provenance.base_experts)]
    roots += [digest for digest in (provenance.projection, provenance.base) if digest]
    made = {
        digest
        for digest in (provenance.assembled, provenance.finetuned, provenance.compressed)
        if digest
    }
    absent = {
        d
        # Of the expected results only the manifests are needed, for the comparison.
        for d in (*roots, *made, *_documents(provenance), *_embeddings(provenance))
        if blobs.size(d) is None
    }
    for root in set(roots) - absent:
        needed = manifests.load(blobs, root).digests()
        absent |= {digest for digest in needed if blobs.size(digest) is None}
    if absent:
        raise NotFound(
            f"{len(absent)} blobs that the provenance needs are not in this store",
            problems=tuple(Problem("/blobs", digest) for digest in sorted(absent)),
        )


def _documents(provenance: Provenance) -> Iterator[str]:
    """Yield the documents that the steps of a mix read: an assembly alone reads none of most."""
    recipe = provenance.recipe
    if recipe.finetune.num_steps or recipe.compress or recipe.router_init == "documents":
        yield from (digest for digest in provenance.documents if digest is not None)


def _embeddings(provenance: Provenance) -> Iterator[str]:
    """Yield what was stored of the experts' domains."""
    yield provenance.vectors
    yield from provenance.states
    moments = (*provenance.moments, *provenance.base_moments)
    yield from (digest for digest in moments if digest is not None)


def _describe(progress: Progress) -> str:
    return f"finetuning, step {progress.step} of {progress.num_steps}, loss {progress.loss:.3f}"
