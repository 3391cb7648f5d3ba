"""`python -m assembler.jobs.offline_tasks`: tasks that need torch but no job.

    seed [FAMILY]                                 unpack the seed of a family of the demo
    expert SEED DOCUMENTS [ExpertTraining JSON]   train an expert from it, or find it in the cache
    gate REQUEST                                  compare two models, a `ComparisonRequest` as JSON
    reproduce PROVENANCE [assembly]               make a mix again, or only assemble it, and compare
    compress MANIFEST DOCUMENTS REQUEST           make a checkpoint of the store smaller: digests,
                                                  of documents as a JSON list; Compression JSON
    compress-folder FOLDER DOCUMENTS OUTPUT REQUEST     the same with paths, from folder to folder
    sparsify, sparsify-folder                     both with a Sparsification

Writes JSON objects to stdout, one a line: `{"progress": ...}` during the task, `{"result": ...}`
at its end. Ends with 0, or with 1 and a last line `{"error": "..."}`.
"""

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from assembler.demo import seed_folders, seeds
from assembler.training import expert_training
from assembler.training.expert_training import ExpertTraining
from assembler.training.optimizer import Progress
from registry.blobs.blobs import BlobStore
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.errors import NexusmixError

MAX_REASON = 300

# The written manifest, the curve of the search, and its chosen point.
Compressed = tuple[Manifest, BaseModel, BaseModel]
# Compresses a checkpoint with the documents of each domain, for a request in JSON.
Compress = Callable[[Manifest, Sequence[Sequence[Document]], str, BlobStore], Compressed]


def prepare_seed(family: str = seeds.DEFAULT.name) -> dict[str, Any]:
    return {"folder": str(seed_folders.unpacked(seeds.find(family)))}


def train_expert(seed: str, documents: str, training: str = "{}") -> dict[str, Any]:
    folder = expert_training.train_expert(
        Path(seed),
        Path(documents),
        training=ExpertTraining.model_validate_json(training),
        on_progress=_tell_progress,
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    return {"folder": str(folder), "metrics": metrics}


def reproduce(provenance: str, stages: str = "all") -> dict[str, Any]:
    # Imported here: no other task makes mixes.
    from assembler.jobs import reproduction
    from registry.blobs import blob_stores

    read = reproduction.read(Path(provenance).read_bytes())
    made = reproduction.reproduce(
        read,
        blobs=blob_stores.store(),
        assembly_only=stages == "assembly",
        on_progress=_tell_text,
    )
    return reproduction.report(read, made)


def compress(manifest_digest: str, documents_digests: str, request: str) -> dict[str, Any]:
    return _compress_stored(_compressor, manifest_digest, documents_digests, request)


def compress_folder(folder: str, documents_path: str, output: str, request: str) -> dict[str, Any]:
    return _compress_folder(_compressor, folder, documents_path, output, request)


def sparsify(manifest_digest: str, documents_digests: str, request: str) -> dict[str, Any]:
    return _compress_stored(_sparsifier, manifest_digest, documents_digests, request)


def sparsify_folder(folder: str, documents_path: str, output: str, request: str) -> dict[str, Any]:
    return _compress_folder(_sparsifier, folder, documents_path, output, request)


def _compressor(
    manifest: Manifest, documents: Sequence[Sequence[Document]], request: str, blobs: BlobStore
) -> Compressed:
    from assembler.compression.quantize import Compressor
    from engine.compression.int8_curve import Compression

    parsed = Compression.model_validate_json(request)
    compressor = Compressor(manifest, documents, parsed, blobs=blobs, on_progress=_tell_text)
    curve = compressor.curve()
    return compressor.write(curve.chosen), curve, curve.chosen


def _sparsifier(
    manifest: Manifest, documents: Sequence[Sequence[Document]], request: str, blobs: BlobStore
) -> Compressed:
    from assembler.compression.sparsify import Sparsifier
    from engine.compression.sparsity_curve import Sparsification

    parsed = Sparsification.model_validate_json(request)
    sparsifier = Sparsifier(manifest, documents, parsed, blobs=blobs, on_progress=_tell_text)
    curve = sparsifier.curve()
    return sparsifier.write(curve.chosen), curve, curve.chosen


def _compress_stored(
    make: Compress, manifest_digest: str, documents_digests: str, request: str
) -> dict[str, Any]:
    from registry.blobs import blob_stores
    from registry.catalog import documents
    from registry.checkpoints import manifests

    store = blob_stores.store()
    made, curve, chosen = make(
        manifests.load(store, manifest_digest),
        [documents.parse(store.read(digest)) for digest in json.loads(documents_digests)],
        request,
        store,
    )
    return _summary(curve, chosen) | {"manifest_digest": made.digest}


def _compress_folder(
    make: Compress, folder: str, documents_path: str, output: str, request: str
) -> dict[str, Any]:
    from registry.blobs.blobs import LocalBlobs
    from registry.catalog import documents
    from registry.checkpoints import exports
    from registry.disk import reserve_on
    from registry.ingest.checkpoint_folder import CheckpointFolder

    # Beside the result, where there is room for a copy; the disk of /tmp may be too small.
    with TemporaryDirectory(dir=Path(output).parent, prefix=".compress-") as scratch:
        store = LocalBlobs(Path(scratch), reserve_bytes=reserve_on(Path(scratch)))
        made, curve, chosen = make(
            CheckpointFolder.read(Path(folder)).keep(store),
            [documents.parse([Path(documents_path).read_bytes()])],
            request,
            store,
        )
        exports.export(made, store, Path(output), on_bytes=lambda num_bytes: None)
    return _summary(curve, chosen)


def _summary(curve: BaseModel, chosen: BaseModel) -> dict[str, Any]:
    return {"curve": curve.model_dump(mode="json"), "chosen": chosen.model_dump(mode="json")}


def gate(request: str) -> dict[str, Any]:
    from assembler.evaluation import comparison
    from assembler.evaluation.comparison_request import ComparisonRequest
    from registry.blobs import blob_stores

    report = comparison.gate(
        ComparisonRequest.model_validate_json(request),
        blobs=blob_stores.store(),
        on_progress=_tell_text,
    )
    return report.model_dump(mode="json")


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "seed": prepare_seed,
    "expert": train_expert,
    "gate": gate,
    "reproduce": reproduce,
    "compress": compress,
    "compress-folder": compress_folder,
    "sparsify": sparsify,
    "sparsify-folder": sparsify_folder,
}


def main(command: str, *arguments: str) -> int:
    try:
        _tell({"result": COMMANDS[command](*arguments)})
    except NexusmixError as error:
        details = [error.detail, *(f"{p.pointer} {p.detail}" for p in error.problems)]
        _tell({"error": "; ".join(details)})
        return 1
    except OSError as error:
        _tell({"error": str(error)})
        return 1
    except Exception as error:
        # A mistake of ours, or of a library: the log has the whole of it, the caller a sentence.
        traceback.print_exc()
        reason = " ".join(str(error).split())
        _tell({"error": f"{type(error).__name__}: {reason[:MAX_REASON]}"})
        return 1
    return 0


def _tell_text(text: str) -> None:
    _tell({"progress": text})


def _tell_progress(progress: Progress) -> None:
    text = (
        f"step {progress.step} of {progress.num_steps}, loss {progress.loss:.2f}, "
        f"{progress.eta_seconds:.0f} s left"
    )
    _tell_text(text)


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
