"""Make the checkpoint of a version that is imported: merge an adapter, dequantize GGUF."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints import manifests
from registry.checkpoints.file_names import ADAPTER_TENSORS, TOKENIZER
from registry.checkpoints.manifests import Manifest, Origin
from registry.checkpoints.safetensors_header import parse_header, read_raw_header
from registry.database.tables import ExpertVersion
from registry.imports import gguf_checkpoints, gguf_header, gguf_weights, lora_adapters
from registry.imports.lora_config import LoraConfig
from registry.imports.sources import Source

# Takes the sentence that says what is being done.
OnProgress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A checkpoint; if it was fetched, also what was found, and that as a sentence."""

    manifest: Manifest
    source: Source | None = None
    summary: str | None = None


def run(version: ExpertVersion, blobs: BlobStore, *, on_progress: OnProgress) -> Imported:
    """Store the tensors of the checkpoint and return it.

    Raises InvalidCheckpoint and Incompatible for a source that is not what was announced, NotFound
    for lost blobs, and OutOfSpace.
    """
    assert version.source is not None
    source = Source.from_json(version.source)
    seed = manifests.load(blobs, version.expert.family.seed_digest)
    make = from_gguf if source.kind == "gguf" else from_adapter
    path = blobs.local_path(source.digest)
    return Imported(manifest=make(source, path, seed, blobs, on_progress=on_progress))


def from_adapter(
    source: Source, path: Path, seed: Manifest, blobs: BlobStore, *, on_progress: OnProgress
) -> Manifest:
    """Merge the adapter at `path` into a seed, and store the tensors."""
    spans = parse_header(read_raw_header(path), file_size=path.stat().st_size, file=ADAPTER_TENSORS)
    planned = lora_adapters.plan(LoraConfig.read(source.config), spans, seed)
    tensors = lora_adapters.merge(
        planned,
        path,
        seed,
        blobs,
        on_tensor=lambda name, number, num_tensors: on_progress(
            f"merging {name} ({number} of {num_tensors})"
        ),
    )
    files = {**seed.files, **source.files}
    return replace(_noted(seed, source.origin), tensors=tensors, files=files)


def from_gguf(
    source: Source, path: Path, seed: Manifest, blobs: BlobStore, *, on_progress: OnProgress
) -> Manifest:
    """Dequantize the GGUF file at `path`, and store the tensors."""
    header = gguf_header.read(path)
    planned = gguf_checkpoints.plan(header, seed)
    gguf_checkpoints.check_tokens(header, get_bytes(blobs, seed.files[TOKENIZER]))
    tensors = gguf_weights.store(
        planned,
        path,
        seed,
        blobs,
        on_tensor=lambda name, number, num_tensors: on_progress(
            f"dequantizing {name} ({number} of {num_tensors})"
        ),
    )
    return replace(_noted(seed, source.origin), tensors=tensors)


def _noted(seed: Manifest, origin: Origin | None) -> Manifest:
    return replace(seed, notes=replace(seed.notes, origin=origin))
