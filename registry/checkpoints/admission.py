"""Check what is announced of a checkpoint, before any byte of it is sent.

`announce` checks config, headers and digests, `check_fits` compares with the seed of a family. The
bytes are checked later, see `byte_checks`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath
from typing import Any

from registry.blobs.blobs import BlobStore
from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.config_fields import without_nulls
from registry.checkpoints.file_names import ATTESTATION, CONFIG, TENSORS_INDEX, TOKENIZER
from registry.checkpoints.manifests import Manifest, Notes, TensorEntry
from registry.checkpoints.safetensors_header import parse_header
from registry.errors import (
    Conflict,
    Incompatible,
    InvalidCheckpoint,
    Problem,
    pointer,
)
from registry.names import is_digest

FLOAT_DTYPES = ("BF16", "F16", "F32")
FILE_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".md"}
LEGAL_FILES = {"LICENSE", "LICENCE", "NOTICE"}
# These are made at every download; a copy that is sent could contradict the checkpoint.
COMPUTED_FILES = {CONFIG, TENSORS_INDEX, ATTESTATION}
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
LAYER = re.compile(r"\.layers\.\d+\.")
LM_HEAD = tensor_names.LM_HEAD + tensor_names.WEIGHT
# Why a tensor is left out.
COMPUTED, EQUAL = "is computed from config.json", "equals the embeddings"
VOCABULARY_MATRICES = (tensor_names.EMBEDDINGS, LM_HEAD)


@dataclass(frozen=True)
class Shard:
    """An announced safetensors file: name, size in bytes, and the JSON text of its header."""

    file: str
    size: int
    header: str


@dataclass(frozen=True, kw_only=True)
class CheckpointAnnouncement:
    """The description of a checkpoint that an owner sends before its blobs.

    `config` is the content of `config.json`. `files` and `digests` map file names and tensor names
    to SHA-256 in hexadecimal. `notes` say what the sender changed.
    """

    config: dict[str, Any]
    files: Mapping[str, str]
    shards: Sequence[Shard]
    digests: Mapping[str, str]
    notes: Notes = field(default_factory=Notes)


def announce(announced: CheckpointAnnouncement) -> Manifest:
    """Check the announcement of a dense checkpoint and return its manifest.

    Tensors that say nothing of their own are left out of it, see `_left_out`. Raises
    InvalidCheckpoint with every problem of config, file names, headers, digests, tensor names,
    shapes and dtypes.
    """
    architecture, problems = _read_config(announced.config)
    tensors, header_problems = _read_headers(announced.shards, announced.digests)
    problems += header_problems
    problems += _note_problems(announced.notes, tensors)
    left_out: dict[str, str] = {}
    if not header_problems:
        # A header that cannot be read would make all its tensors seem missing.
        problems += _digest_problems(tensors, announced.digests)
        if architecture is not None:
            left_out = _left_out(tensors, architecture)
            rest = {name: entry for name, entry in tensors.items() if name not in left_out}
            problems += _tensor_problems(rest, architecture)
    problems += file_problems(announced.files)
    if TOKENIZER not in announced.files:
        problems.append(Problem(pointer("files", TOKENIZER), "is missing"))
    if problems:
        raise InvalidCheckpoint("the checkpoint is refused", problems=tuple(problems))
    manifest = Manifest(
        config=without_nulls(announced.config),
        tensors=tensors,
        files=dict(announced.files),
        notes=announced.notes,
    )
    return _without(manifest, left_out)


def tied_as(seed: Manifest, manifest: Manifest) -> Manifest:
    """Return a checkpoint whose output matrix equals its embeddings as tied, if its seed is."""
    tensors = manifest.tensors
    equal = LM_HEAD in tensors and tensors[LM_HEAD] == tensors[tensor_names.EMBEDDINGS]
    if not equal or not seed.architecture.tie_word_embeddings:
        return manifest
    config = manifest.config | {"tie_word_embeddings": True}
    return _without(replace(manifest, config=config), {LM_HEAD: EQUAL})


def check_fits(manifest: Manifest, seed: Manifest) -> None:
    """Check that `manifest` can have branched from `seed`. Raises Incompatible if not."""
    if problems := tuple(differences(manifest, seed)):
        raise Incompatible("the checkpoint does not fit its family", problems=problems)


def differences(manifest: Manifest, seed: Manifest) -> Iterator[Problem]:
    """Yield the reasons why `manifest` cannot have branched from `seed`.

    They are differences of architecture, tensor names, shapes or dtypes. A difference that occurs
    in several blocks is reported once. Tokenizers are compared once their bytes are there.
    """
    ours, theirs = manifest.architecture, seed.architecture
    for part in fields(Architecture):
        value, expected = getattr(ours, part.name), getattr(theirs, part.name)
        if value != expected:
            at = pointer("config", part.name)
            yield Problem(at, f"is {value!r}, the family's seed has {expected!r}")
    yield from _tensor_differences(manifest.tensors, seed.tensors)


def missing(
    blobs: BlobStore, manifest: Manifest, *, known: set[str], permitted: set[str]
) -> list[str]:
    """Return the digests that must still be sent, sorted. Blobs in `known` are stored already.

    A blob that is not in `permitted` must be sent even if the store has it: the sender has shown
    its digest only, and must not learn whether it is there. The blobs that are there are kept: a
    row that names them follows. Raises InvalidCheckpoint if a stored blob has another size than its
    header announces.
    """
    entries = (*manifest.tensors.values(), *manifest.notes.rows.values())
    sizes = {entry.digest: entry.num_bytes for entry in entries}
    absent, problems = [], []
    for digest in sorted(manifest.digests() - known):
        size = blobs.keep(digest) if digest in permitted else None
        if size is None:
            absent.append(digest)
        elif size != sizes.get(digest, size):
            detail = f"blob {digest} has {size} bytes, the header tells {sizes[digest]}"
            problems.append(Problem("/digests", detail))
    if problems:
        raise InvalidCheckpoint("digests contradict the headers", problems=tuple(problems))
    return absent


def check_sent(
    blobs: BlobStore, manifest: Manifest, *, known: set[str], permitted: set[str]
) -> None:
    """Check that no blob is missing; see `missing`. Raises Conflict with those that are."""
    if absent := missing(blobs, manifest, known=known, permitted=permitted):
        raise Conflict(
            f"{len(absent)} blobs were not sent yet",
            problems=tuple(Problem("/missing", digest) for digest in absent),
        )


def _read_config(config: dict[str, Any]) -> tuple[Architecture | None, list[Problem]]:
    try:
        architecture = Architecture.from_config(config)
    except InvalidCheckpoint as error:
        return None, list(error.problems)
    if architecture.num_experts:
        detail = "a mix can be neither seed nor expert: send a dense model"
        return None, [Problem("/config/num_experts", detail)]
    if architecture.has_gaps:
        detail = "no part of the network may be removed: send the removed weights as zeros"
        return None, [Problem("/config/ffn_sizes", detail)]
    problems = [*_leftovers(config), *_end_problems(config, architecture.vocab_size)]
    if architecture.parallel_block and config["model_type"] == "llama":
        detail = "no program would read it in a model of type 'llama'"
        problems.append(Problem("/config/parallel_block", detail))
    return architecture, problems


def _leftovers(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Report a quantization: experts are full numbers, and a reader would look for scales."""
    for name in ("quantization_config", "compression_config"):
        scheme = config.get(name)
        if scheme is not None:
            method = scheme.get("quant_method") if isinstance(scheme, dict) else scheme
            detail = (
                f"says that the weights are quantized ({method!r}); experts have full weights:"
                f" take the field out of {CONFIG} if these are, or send the model before its"
                " quantization"
            )
            yield Problem(pointer("config", name), detail)


def _end_problems(config: Mapping[str, Any], vocab_size: int) -> Iterator[Problem]:
    """Report end-of-text tokens that the network has no row for."""
    ends = config.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if type(end) is not int or not 0 <= end < vocab_size:
            detail = f"is {end!r}, expected the number of a token, from 0 to {vocab_size - 1}"
            yield Problem("/config/eos_token_id", detail)


def _read_headers(
    shards: Iterable[Shard], digests: Mapping[str, str]
) -> tuple[dict[str, TensorEntry], list[Problem]]:
    tensors: dict[str, TensorEntry] = {}
    problems: list[Problem] = []
    for position, shard in enumerate(shards):
        at = pointer("shards", position, "header")
        try:
            spans = parse_header(shard.header, file_size=shard.size, file=shard.file, pointer=at)
        except InvalidCheckpoint as error:
            problems += error.problems
            continue
        for name, span in spans.items():
            if name in tensors:
                problems.append(Problem(at, f"tensor {name!r} is in an earlier shard too"))
            tensors[name] = TensorEntry(span.dtype, span.shape, digests.get(name, ""))
    return tensors, problems


def file_problems(files: Mapping[str, str], *, below: str = "") -> Iterator[Problem]:
    """Yield what is wrong with names and digests of files beside the weights, with pointers."""
    for name, digest in files.items():
        at = below + pointer("files", name)
        suffix = PurePosixPath(name).suffix
        if name != PurePosixPath(name).name or name.startswith("."):
            yield Problem(at, "is not a plain file name")
        elif suffix.lower() in PICKLE_SUFFIXES:
            yield Problem(at, "may hold a pickle, which runs code: only safetensors enters")
        elif name in COMPUTED_FILES or suffix == ".safetensors":
            yield Problem(at, "is computed from the checkpoint and must not be sent as a file")
        elif suffix not in FILE_SUFFIXES and name not in LEGAL_FILES:
            yield Problem(at, f"only {sorted(FILE_SUFFIXES)} and {sorted(LEGAL_FILES)} are kept")
        if not is_digest(digest):
            yield Problem(at, f"{digest!r} is not a SHA-256 in lower-case hexadecimal")


def _note_problems(notes: Notes, tensors: Mapping[str, TensorEntry]) -> Iterator[Problem]:
    """Report notes that do not belong to the checkpoint."""
    yield from file_problems(notes.files, below="/notes")
    for name in notes.casts.keys() - tensors.keys():
        yield Problem(pointer("notes", "casts", name), "is no tensor of the checkpoint")
    for name, entry in notes.rows.items():
        at, matrix = pointer("notes", "rows", name), tensors.get(name)
        if name not in VOCABULARY_MATRICES or matrix is None:
            yield Problem(at, f"has no rows of its own, only {VOCABULARY_MATRICES} have")
        elif entry.dtype != matrix.dtype or entry.shape[1:] != matrix.shape[1:]:
            yield Problem(at, "differs from its matrix in dtype or width")
        elif not is_digest(entry.digest):
            yield Problem(at, f"{entry.digest!r} is not a SHA-256 in lower-case hexadecimal")


def _without(manifest: Manifest, left_out: Mapping[str, str]) -> Manifest:
    """Return a checkpoint without some tensors, noted with the reasons."""
    if not left_out:
        return manifest
    notes = manifest.notes
    tensors = {name: e for name, e in manifest.tensors.items() if name not in left_out}
    notes = replace(
        notes,
        left_out={**notes.left_out, **left_out},
        casts={name: cast for name, cast in notes.casts.items() if name not in left_out},
        rows={name: rows for name, rows in notes.rows.items() if name not in left_out},
    )
    return replace(manifest, tensors=tensors, notes=notes)


def _left_out(tensors: Mapping[str, TensorEntry], architecture: Architecture) -> dict[str, str]:
    """Return the tensors that say nothing of their own, each with the reason.

    Old checkpoints store the frequencies of rotary embeddings, and some tools store tied embeddings
    twice.
    """
    left_out = {name: COMPUTED for name in tensors if tensor_names.is_rotary_frequency(name)}
    head, embeddings = tensors.get(LM_HEAD), tensors.get(tensor_names.EMBEDDINGS)
    if architecture.tie_word_embeddings and head is not None and head == embeddings:
        left_out[LM_HEAD] = EQUAL
    return left_out


def _tensor_problems(
    tensors: Mapping[str, TensorEntry], architecture: Architecture
) -> Iterator[Problem]:
    expected = architecture.tensor_shapes()
    for name, shape in expected.items():
        at = pointer("tensors", name)
        if name not in tensors:
            yield Problem(at, f"tensor {name!r} of shape {list(shape)} is missing")
        elif tensors[name].shape != shape:
            actual = list(tensors[name].shape)
            yield Problem(at, f"tensor {name!r} has shape {actual}, config.json asks {list(shape)}")
    for name, entry in tensors.items():
        at = pointer("tensors", name)
        if name == LM_HEAD and architecture.tie_word_embeddings:
            detail = (
                f"tensor {name!r} differs from the embeddings, and config.json ties both"
                " (tie_word_embeddings): set that to false, or leave the tensor out"
            )
            yield Problem(at, detail)
        elif name not in expected:
            yield Problem(at, f"tensor {name!r} has no place in this model")
        elif entry.dtype not in FLOAT_DTYPES:
            yield Problem(at, f"tensor {name!r} is {entry.dtype}, expected one of {FLOAT_DTYPES}")


def _tensor_differences(
    tensors: Mapping[str, TensorEntry], expected: Mapping[str, TensorEntry]
) -> Iterator[Problem]:
    alike: dict[tuple[str, str, str], list[str]] = {}
    for name in {**expected, **tensors}:
        ours = _kind(tensors.get(name), absent="missing")
        theirs = _kind(expected.get(name), absent="none of that name")
        if ours != theirs:
            alike.setdefault((LAYER.sub(".layers.*.", name), ours, theirs), []).append(name)
    for (_, ours, theirs), names in alike.items():
        more = f" and {len(names) - 1} like it in other blocks" if len(names) > 1 else ""
        detail = f"tensor {names[0]!r}{more} is {ours}, the family's seed has {theirs}"
        if _differ_in_dtype_only(tensors.get(names[0]), expected.get(names[0])):
            detail += ": send it in that dtype, as `nexusmix register` does"
        yield Problem(pointer("tensors", names[0]), detail)


def _differ_in_dtype_only(ours: TensorEntry | None, theirs: TensorEntry | None) -> bool:
    return ours is not None and theirs is not None and ours.shape == theirs.shape


def _kind(entry: TensorEntry | None, *, absent: str) -> str:
    return absent if entry is None else f"{entry.dtype} {list(entry.shape)}"


def _digest_problems(
    tensors: Mapping[str, TensorEntry], digests: Mapping[str, str]
) -> Iterator[Problem]:
    sizes: dict[str, int] = {}
    for name, entry in tensors.items():
        at = pointer("digests", name)
        if name not in digests:
            yield Problem(at, "is missing")
        elif not is_digest(entry.digest):
            yield Problem(at, f"{entry.digest!r} is not a SHA-256 in lower-case hexadecimal")
        elif sizes.setdefault(entry.digest, entry.num_bytes) != entry.num_bytes:
            yield Problem(at, "is also the digest of a tensor of another size")
    for name in digests.keys() - tensors.keys():
        yield Problem(pointer("digests", name), f"no header has a tensor {name!r}")
