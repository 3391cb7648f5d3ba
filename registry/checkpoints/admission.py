"""Check a checkpoint before the registry takes it, without torch.

`announce` checks config, headers and digests before any byte is sent. `verify` reads the bytes once
all blobs are stored: they must have their digests, and every number must be finite.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from registry import bounded_json
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.config_fields import without_nulls
from registry.checkpoints.file_names import ATTESTATION, CONFIG, TENSORS_INDEX, TOKENIZER
from registry.checkpoints.manifests import DTYPE_BYTES, Manifest, TensorEntry
from registry.checkpoints.safetensors_header import parse_header
from registry.errors import (
    Conflict,
    Incompatible,
    InvalidCheckpoint,
    InvalidInput,
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
MAX_JSON_BYTES = 64 << 20
# A tokenizer with 256,000 tokens and as many merges has two million.
MAX_JSON_ELEMENTS = 8_000_000
LAYER = re.compile(r"\.layers\.\d+\.")
# The bits of the exponent: if all are set, the number is infinite or NaN (IEEE 754, section 3.4).
EXPONENTS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F16": (np.uint16, 0x7C00),
    "F32": (np.uint32, 0x7F80_0000),
}


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
    to SHA-256 in hexadecimal.
    """

    config: dict[str, Any]
    files: Mapping[str, str]
    shards: Sequence[Shard]
    digests: Mapping[str, str]


def announce(announced: CheckpointAnnouncement) -> Manifest:
    """Check the announcement of a dense checkpoint and return its manifest.

    Raises InvalidCheckpoint with every problem of config, file names, headers, digests, tensor
    names, shapes and dtypes.
    """
    architecture, problems = _read_config(announced.config)
    tensors, header_problems = _read_headers(announced.shards, announced.digests)
    problems += header_problems
    if not header_problems:
        # A header that cannot be read would make all its tensors seem missing.
        problems += _digest_problems(tensors, announced.digests)
        if architecture is not None:
            problems += _tensor_problems(tensors, architecture.tensor_shapes())
    problems += _file_problems(announced.files)
    if problems:
        raise InvalidCheckpoint("the checkpoint is refused", problems=tuple(problems))
    config = without_nulls(announced.config)
    return Manifest(config=config, tensors=tensors, files=dict(announced.files))


def check_fits(manifest: Manifest, seed: Manifest) -> None:
    """Check that `manifest` can have branched from `seed`. Raises Incompatible if not."""
    if problems := tuple(differences(manifest, seed)):
        raise Incompatible("the checkpoint does not fit its family", problems=problems)


def differences(manifest: Manifest, seed: Manifest) -> Iterator[Problem]:
    """Yield the reasons why `manifest` cannot have branched from `seed`.

    They are differences of architecture, tensor names, shapes, dtypes, or tokenizer. A difference
    that occurs in several blocks is reported once.
    """
    ours, theirs = manifest.architecture, seed.architecture
    for field in fields(Architecture):
        value, expected = getattr(ours, field.name), getattr(theirs, field.name)
        if value != expected:
            at = pointer("config", field.name)
            yield Problem(at, f"is {value!r}, the family's seed has {expected!r}")
    yield from _tensor_differences(manifest.tensors, seed.tensors)
    if manifest.files[TOKENIZER] != seed.files[TOKENIZER]:
        detail = f"has SHA-256 {manifest.files[TOKENIZER]}, the family's is {seed.files[TOKENIZER]}"
        yield Problem(pointer("files", TOKENIZER), detail)


def missing(
    blobs: BlobStore, manifest: Manifest, *, known: set[str], permitted: set[str]
) -> list[str]:
    """Return the digests that must still be sent, sorted. Blobs in `known` are stored already.

    A blob that is not in `permitted` must be sent even if the store has it: the sender has shown
    its digest only, and must not learn whether it is there. The blobs that are there are kept: a
    row that names them follows. Raises InvalidCheckpoint if a stored blob has another size than its
    header announces.
    """
    sizes = {entry.digest: entry.num_bytes for entry in manifest.tensors.values()}
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


def verify(blobs: BlobStore, manifest: Manifest, *, known: set[str]) -> None:
    """Read every blob that is not in `known`, and check digest, size, finite numbers and JSON.

    Raises Conflict if blobs were not sent yet, and InvalidCheckpoint with each bad tensor or file.
    """
    check_sent(blobs, manifest, known=known, permitted=manifest.digests())
    problems = []
    checked = set(known)
    for name, entry in manifest.tensors.items():
        if entry.digest not in checked and (error := _tensor_error(blobs, entry)):
            problems.append(Problem(pointer("tensors", name), f"tensor {name!r} {error}"))
        checked.add(entry.digest)
    for name, digest in manifest.files.items():
        if digest not in known and (error := _file_error(blobs, name, digest)):
            problems.append(Problem(pointer("files", name), f"file {name} {error}"))
    if problems:
        raise InvalidCheckpoint("the bytes that were sent are refused", problems=tuple(problems))


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


def _file_problems(files: Mapping[str, str]) -> Iterator[Problem]:
    for name, digest in files.items():
        at = pointer("files", name)
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
    if TOKENIZER not in files:
        yield Problem(pointer("files", TOKENIZER), "is missing")


def _tensor_problems(
    tensors: Mapping[str, TensorEntry], expected: Mapping[str, tuple[int, ...]]
) -> Iterator[Problem]:
    for name, shape in expected.items():
        at = pointer("tensors", name)
        if name not in tensors:
            yield Problem(at, f"tensor {name!r} of shape {list(shape)} is missing")
        elif tensors[name].shape != shape:
            actual = list(tensors[name].shape)
            yield Problem(at, f"tensor {name!r} has shape {actual}, config.json asks {list(shape)}")
    for name, entry in tensors.items():
        at = pointer("tensors", name)
        if name not in expected:
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
        yield Problem(pointer("tensors", names[0]), detail)


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


def _tensor_error(blobs: BlobStore, entry: TensorEntry) -> str | None:
    """Read the bytes of a tensor once, in chunks, and return what is wrong with them."""
    width = DTYPE_BYTES[entry.dtype]
    unsigned, exponent = EXPONENTS[entry.dtype]
    sha = hashlib.sha256()
    rest, position, bad = b"", 0, None
    for chunk in blobs.read(entry.digest):
        sha.update(chunk)
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % width
        rest = data[whole:]
        bits = np.frombuffer(data, unsigned, whole // width) & unsigned(exponent)
        if bad is None and (hits := bits == exponent).any():
            bad = position + int(hits.argmax())
        position += whole // width
    if sha.hexdigest() != entry.digest:
        return f"is corrupt: its bytes have SHA-256 {sha.hexdigest()}, not {entry.digest}"
    if bad is not None:
        index = [int(i) for i in np.unravel_index(bad, entry.shape)]
        return f"holds NaN or infinity at {index}, expected finite numbers"
    return None


def _file_error(blobs: BlobStore, name: str, digest: str) -> str | None:
    size = blobs.size(digest) or 0
    if size > MAX_JSON_BYTES:
        return f"has {size} bytes, at most {MAX_JSON_BYTES} are taken"
    data = get_bytes(blobs, digest)
    if hashlib.sha256(data).hexdigest() != digest:
        return "is corrupt: its bytes do not have the digest that names it"
    if name.endswith(".json"):
        try:
            bounded_json.check_bounds(data, max_elements=MAX_JSON_ELEMENTS)
            json.loads(data)
        except InvalidInput as error:
            return f"holds {error.detail}"
        except (ValueError, RecursionError) as error:
            return f"is not JSON: {error}"
    return None
