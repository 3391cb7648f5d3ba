"""Merge a LoRA or DoRA adapter into the seed of its family, tensor by tensor in float32.

`plan` checks config and header before any byte is read: every tensor of the adapter must have a
place in the seed. `merge` computes the weights that `merge_and_unload()` of peft computes.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.numpy_tensors import RAW_DTYPES, Floats
from registry.checkpoints.safetensors_header import TensorSpan
from registry.checkpoints.tensor_names import EMBEDDINGS, LM_HEAD, WEIGHT
from registry.errors import Incompatible, InvalidCheckpoint, Problem, pointer
from registry.imports.lora_config import LoraConfig

# What peft puts in front of the names of the network.
PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
# Rows of a weight that are merged at a time, so that a large one needs little memory.
BLOCK_ROWS = 4096
MAX_NAMED = 4

# Called with the name of a tensor, its number from 1, and the number of all.
OnTensor = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Update:
    """A weight of the seed and what is added to it; the other fields are tensors of the adapter."""

    weight: str
    a: TensorSpan
    b: TensorSpan
    magnitude: TensorSpan | None
    scaling: float


@dataclass(frozen=True, kw_only=True)
class MergePlan:
    """What an adapter changes: weights that are updated, and tensors that it has as a whole."""

    updates: tuple[Update, ...]
    replaced: Mapping[str, TensorSpan]
    summary: str


def plan(config: LoraConfig, spans: Mapping[str, TensorSpan], seed: Manifest) -> MergePlan:
    """Find the place of each tensor of an adapter in the seed.

    Raises InvalidCheckpoint with each tensor that contradicts the config, and Incompatible with
    each that has no place in the seed.
    """
    parts, whole = _sorted(spans)
    problems = [*_contradictions(config, parts)]
    if not parts and not whole:
        problems.append(Problem("/weights", "has no tensor"))
    if problems:
        raise InvalidCheckpoint("the adapter is refused", problems=tuple(problems))
    if misfits := tuple(_misfits(parts, whole, seed)):
        base = f", but of {config.base_model!r}," if config.base_model else ""
        raise Incompatible(
            f"the adapter is none of the family's seed{base} as its tensors show", problems=misfits
        )
    updates = tuple(
        Update(
            weight=module + WEIGHT,
            a=found["lora_A"],
            b=found["lora_B"],
            magnitude=found.get("lora_magnitude_vector"),
            scaling=config.scaling_of(module),
        )
        for module, found in parts.items()
    )
    return MergePlan(updates=updates, replaced=whole, summary=_summary(config, parts, whole))


def merge(
    planned: MergePlan, adapter: Path, seed: Manifest, blobs: BlobStore, *, on_tensor: OnTensor
) -> dict[str, TensorEntry]:
    """Store the merged tensors in the seed's dtypes; return all tensors of the expert by name.

    Raises NotFound for a lost blob, and OutOfSpace.
    """
    tensors = dict(seed.tensors)
    num_tensors = len(planned.updates) + len(planned.replaced)
    number = 0
    for update in planned.updates:
        number += 1
        on_tensor(update.weight, number, num_tensors)
        entry = seed.tensors[update.weight]
        merged = _merged(numpy_tensors.read(blobs, entry), update, adapter)
        tensors[update.weight] = numpy_tensors.write(blobs, merged, dtype=entry.dtype)
    for name, span in planned.replaced.items():
        number += 1
        on_tensor(name, number, num_tensors)
        dtype = seed.tensors[name].dtype
        tensors[name] = numpy_tensors.write(blobs, _read(adapter, span), dtype=dtype)
    return tensors


def _sorted(
    spans: Mapping[str, TensorSpan],
) -> tuple[dict[str, dict[str, TensorSpan]], dict[str, TensorSpan]]:
    """Return the parts of each adapted module, and the tensors that are there as a whole."""
    parts: dict[str, dict[str, TensorSpan]] = {}
    whole: dict[str, TensorSpan] = {}
    for name, span in spans.items():
        inner = name.removeprefix(PREFIX)
        if match := _PART.fullmatch(inner):
            parts.setdefault(match["module"], {})[match["part"]] = span
        else:
            whole[inner.replace(".modules_to_save.default.", ".")] = span
    return parts, whole


def _contradictions(
    config: LoraConfig, parts: Mapping[str, Mapping[str, TensorSpan]]
) -> Iterator[Problem]:
    """Yield what the header says against the config or against itself."""
    for module, found in parts.items():
        at = pointer("weights", module)
        needed = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if config.is_dora else set())
        if absent := sorted(needed - found.keys()):
            yield Problem(at, f"{module} has no {' and no '.join(absent)}")
            continue
        if odd := sorted(found.keys() - needed):
            yield Problem(at, f"{module} has {odd[0]}, but use_dora is not set")
        a, b, rank = found["lora_A"], found["lora_B"], config.rank_of(module)
        if any(len(span.shape) != 2 for span in (a, b)):
            yield Problem(at, f"{module} has {list(a.shape)} and {list(b.shape)}, not two matrices")
        elif (a.shape[0], b.shape[1]) != (rank, rank):
            detail = (
                f"{module} has rank {a.shape[0]} in lora_A {list(a.shape)} and {b.shape[1]} in"
                f" lora_B {list(b.shape)}; the config asks rank {rank}"
            )
            yield Problem(at, detail)
        for part, span in found.items():
            if span.dtype not in RAW_DTYPES:
                detail = f"{module}.{part} is {span.dtype}, expected one of {sorted(RAW_DTYPES)}"
                yield Problem(at, detail)


def _misfits(
    parts: Mapping[str, Mapping[str, TensorSpan]], whole: Mapping[str, TensorSpan], seed: Manifest
) -> Iterator[Problem]:
    """Yield what has no place in the seed."""
    for module, found in parts.items():
        at, entry = pointer("weights", module), seed.tensors.get(module + WEIGHT)
        if entry is None or len(entry.shape) != 2 or module + WEIGHT == EMBEDDINGS:
            yield Problem(at, f"{module} is no linear layer of the seed")
            continue
        shape = (found["lora_B"].shape[0], found["lora_A"].shape[1])
        if shape != entry.shape:
            detail = f"{module} is adapted as {list(shape)}, the seed has {list(entry.shape)}"
            yield Problem(at, detail)
        magnitude = found.get("lora_magnitude_vector")
        if magnitude is not None and np.prod(magnitude.shape) != shape[0]:
            detail = f"{module} has magnitudes {list(magnitude.shape)} for {shape[0]} rows"
            yield Problem(at, detail)
    for name, span in whole.items():
        at, entry = pointer("weights", name), seed.tensors.get(name)
        if entry is None:
            yield Problem(at, f"{name} {list(span.shape)} {_stray(name, seed)}")
        elif span.shape != entry.shape:
            yield Problem(at, _other_shape(name, span, entry, seed))
        elif span.dtype not in RAW_DTYPES:
            yield Problem(at, f"{name} is {span.dtype}, expected one of {sorted(RAW_DTYPES)}")
        elif name == EMBEDDINGS and seed.architecture.tie_word_embeddings:
            detail = (
                f"{name} was trained apart from the output layer, which the seed ties to it:"
                " a network with one matrix cannot have both"
            )
            yield Problem(at, detail)


def _stray(name: str, seed: Manifest) -> str:
    if ".lora_" in name:
        return "is no part of LoRA or DoRA on a linear layer, so it cannot be merged"
    if name == LM_HEAD + WEIGHT and seed.architecture.tie_word_embeddings:
        return "is not in the seed, which ties its output layer to the embeddings"
    return "is not in the seed"


def _other_shape(name: str, span: TensorSpan, entry: TensorEntry, seed: Manifest) -> str:
    if span.shape[1:] == entry.shape[1:] and entry.shape[0] == seed.architecture.vocab_size:
        return (
            f"{name} has rows for {span.shape[0]} tokens, the seed has {entry.shape[0]}: an adapter"
            " that changes the vocabulary does not fit the family"
        )
    return f"{name} is {list(span.shape)}, the seed has {list(entry.shape)}"


def _merged(weight: Floats, update: Update, adapter: Path) -> Floats:
    """Return W + s B A, for DoRA scaled to the magnitude of each row (DoRA, equation 5)."""
    a, b = _read(adapter, update.a), _read(adapter, update.b)
    magnitude = None
    if update.magnitude is not None:
        magnitude = _read(adapter, update.magnitude).reshape(-1, 1)
    for start in range(0, len(weight), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        weight[rows] += np.float32(update.scaling) * (b[rows] @ a)
        if magnitude is not None:
            norms = np.linalg.norm(weight[rows], axis=1, keepdims=True)
            # A row of zeros has no direction. The check of the merged checkpoint refuses its NaN.
            with np.errstate(divide="ignore", invalid="ignore"):
                weight[rows] *= magnitude[rows] / norms
    return weight


def _read(path: Path, span: TensorSpan) -> Floats:
    dtype = RAW_DTYPES[span.dtype]
    count = span.num_bytes // dtype.itemsize
    raw = np.fromfile(path, dtype, count=count, offset=span.start)
    return numpy_tensors.widen(raw, span.dtype).reshape(span.shape)


def _summary(
    config: LoraConfig,
    parts: Mapping[str, Mapping[str, TensorSpan]],
    whole: Mapping[str, TensorSpan],
) -> str:
    """Return a sentence for people: kind, rank, targets."""
    words = []
    if parts:
        ranks = sorted({found["lora_A"].shape[0] for found in parts.values()})
        targets = sorted({module.rpartition(".")[2] for module in parts})
        kind = "DoRA" if config.is_dora else "rsLoRA" if config.rank_scaling_root else "LoRA"
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        words.append(f"{kind} adapter of {rank} on {', '.join(targets)} ({len(parts)} layers)")
    if whole:
        names = sorted(whole)
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        words.append(f"with {', '.join(names[:MAX_NAMED])}{more} as a whole")
    return " ".join(words)
