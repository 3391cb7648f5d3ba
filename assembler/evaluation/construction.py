"""Check that a mix is what its recipe makes of its parents, before any text is read.

Texts cannot tell damage from a weaker mix: a stored fault is in the reference network and in the
served model alike. So what is known beforehand is checked as such:

- every stored tensor and file has the bytes that its digest names, and finite numbers;
- the assembled mix is, tensor by tensor, what an assembly from the same inputs makes again;
- each tensor is one of its parents', byte by byte, or their average (see `parent_tensors`);
- a finetune changed what it trains and nothing else, no weight farther than its steps can (see
  `trained_tensors`), and router rows follow from their projection;
- each block computes the mixture of the parents' FFNs (see `mixture_blocks`), and with all tokens
  routed to one expert the mix answers as that expert, with averages where there are any.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from assembler.assembly.inputs import MixParts
from assembler.evaluation import mixture_blocks, parent_tensors, trained_tensors
from assembler.evaluation.mixture_blocks import Nearness
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.recipes.recipe import Recipe
from assembler.routing import router_rows
from assembler.training.trainable import is_folded, trains
from engine.gates.report import Construction
from registry.blobs.blobs import BlobStore
from registry.checkpoints import byte_checks, numpy_tensors, tensor_names
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint, Problem, pointer

REFUSED = "the mix is not what its recipe makes, judged"
# Further problems have the same cause, most often.
MAX_PROBLEMS = 20
# Rows that are stored in bfloat16 were rounded by half of this share, and computed in float32.
ROUNDING = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-14}

# Assembles a mix again from the same inputs.
Assemble = Callable[[], Manifest]


def check(parts: MixParts, checkpoints: GateCheckpoints, *, assemble: Assemble) -> Construction:
    """Check the mix, and return what was checked. Raises InvalidCheckpoint with each problem."""
    recipe, blobs = parts.inputs.recipe, parts.blobs
    candidate, assembled = checkpoints.candidate, checkpoints.assembled
    # Damaged bytes first: all other checks read them.
    _refuse("its bytes", byte_checks.damaged(blobs, candidate, known=set()))
    _refuse("a second assembly", _differences(assembled, assemble(), but_for=lambda name: False))
    _refuse("its parents' tensors", parent_tensors.check(parts, assembled))
    if assembled.architecture.has_projection:
        _refuse("its projection", _of_folded_rows(assembled, blobs))
    if checkpoints.finetuned is not None:
        _refuse("its finetune", _of_finetune(recipe, checkpoints, blobs))
    blocks, near = 0, dict[str, Nearness]()
    if recipe.kind == "mixture":
        _refuse("its blocks", mixture_blocks.check(parts, assembled))
        blocks = assembled.architecture.num_hidden_layers
        near = mixture_blocks.nearness(checkpoints, blobs)
        _refuse("its experts", _of_experts(near))
    return Construction(
        blobs=len(candidate.digests()),
        tensors=len(assembled.tensors),
        blocks=blocks,
        experts={name: each.distance for name, each in near.items() if each.is_expert},
        expert_blocks={name: each.blocks for name, each in near.items()},
    )


def _refuse(by: str, problems: Iterator[Problem]) -> None:
    found = tuple(islice(problems, MAX_PROBLEMS))
    if found:
        raise InvalidCheckpoint(f"{REFUSED} by {by}", problems=found)


def _differences(
    made: Manifest, expected: Manifest, *, but_for: Callable[[str], bool]
) -> Iterator[Problem]:
    """Yield what differs between two manifests, but for tensors whose names may."""
    for field in sorted({*made.config, *expected.config}):
        ours, theirs = made.config.get(field), expected.config.get(field)
        if ours != theirs:
            yield Problem(pointer("config", field), f"is {ours!r}, expected {theirs!r}")
    for name in sorted({*made.files, *expected.files}):
        if made.files.get(name) != expected.files.get(name):
            yield Problem(pointer("files", name), "differs from the seed's")
    for name in sorted({*made.tensors, *expected.tensors}):
        entry, right = made.tensors.get(name), expected.tensors.get(name)
        if entry is None or right is None:
            state = "is missing" if entry is None else "has no place in this mix"
            yield Problem(pointer("tensors", name), state)
        elif entry != right and not but_for(name):
            detail = f"is {_short(entry.digest)}, its parents give {_short(right.digest)}"
            yield Problem(pointer("tensors", name), detail)


def _short(digest: str) -> str:
    return f"SHA-256 {digest[:12]}"


def _of_finetune(
    recipe: Recipe, checkpoints: GateCheckpoints, blobs: BlobStore
) -> Iterator[Problem]:
    mix, part = checkpoints.assembled.architecture, recipe.finetune.train
    trained = checkpoints.trained
    yield from _differences(
        trained,
        checkpoints.assembled,
        but_for=lambda name: trains(name, mix, part) or is_folded(name, mix),
    )
    if mix.has_projection:
        yield from _of_folded_rows(trained, blobs)
    by_steps = {n: e for n, e in trained.tensors.items() if trains(n, mix, part)}
    moved = replace(trained, tensors=by_steps)
    yield from trained_tensors.check(recipe.finetune, checkpoints.assembled, moved, blobs)


def _of_folded_rows(trained: Manifest, blobs: BlobStore) -> Iterator[Problem]:
    """Yield the routers whose rows do not follow from the domain embeddings and the projection."""
    embeddings = numpy_tensors.read(blobs, trained.tensors[tensor_names.DOMAIN_EMBEDDINGS])
    for layer, embeddings_NM in enumerate(embeddings):
        w1, w2 = (trained.tensors[tensor_names.projection(layer, number)] for number in (0, 1))
        name = tensor_names.router_rows(layer)
        entry = trained.tensors[name]
        rows_ND = numpy_tensors.read(blobs, entry)
        right_ND = router_rows.project(embeddings_NM, w1, w2, blobs=blobs)
        # A row is as exact as its largest number.
        room_N1 = ROUNDING[entry.dtype] * np.abs(right_ND).max(-1, keepdims=True)
        for number in np.flatnonzero((np.abs(rows_ND - right_ND) > room_N1).any(-1)):
            detail = f"row {number} does not follow from the projection"
            yield Problem(pointer("tensors", name), detail)


def _of_experts(near: dict[str, Nearness]) -> Iterator[Problem]:
    for number, (name, each) in enumerate(near.items()):
        # Written so that NaN is a problem.
        if not each.distance <= mixture_blocks.MAX_DISTANCE:
            right = "it" if each.is_expert else "it with the averages of all experts"
            yield Problem(
                pointer("experts", number),
                f"with all tokens routed to {name!r} the mix is {each.distance:.2g} nats from"
                f" {right}, at most {mixture_blocks.MAX_DISTANCE:g} are rounding",
            )
