"""The small folder that a vLLM server loads: config, tokenizer and manifest, but no tensors."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints.file_names import CONFIG, MANIFEST
from registry.checkpoints.manifests import Manifest
from registry.disk import check_room, refusing_full_disk
from registry.errors import InvalidCheckpoint, Problem, pointer
from registry.folders import whole_folder


def materialize(manifest: Manifest, blobs: BlobStore, *, root: Path) -> Path:
    """Return the model folder of a manifest below `root`; create it if it is missing.

    Raises InvalidCheckpoint when a file name of the manifest would lie outside the folder, when the
    bytes of a file do not have its digest, or when an existing folder differs from the manifest
    (see `check`). Raises NotFound when a blob is
    missing, and OutOfSpace where only the reserve of the disk is left.
    """
    folder = root / manifest.digest
    if folder.exists():
        check(folder, manifest)
        # The folders that were not used for longest are removed first.
        os.utime(folder)
        return folder
    check_room(folder)
    # Another process may make the same folder meanwhile; equal digests mean equal contents.
    with whole_folder(folder, may_exist=True) as incoming, refusing_full_disk(folder):
        for name, digest in manifest.files.items():
            if Path(name).name != name or name in ("", ".."):
                raise InvalidCheckpoint(f"{name!r} is not a plain file name")
            data = get_bytes(blobs, digest)
            if hashlib.sha256(data).hexdigest() != digest:
                raise InvalidCheckpoint(f"the stored file {name} is not what its digest says")
            (incoming / name).write_bytes(data)
        # Written last, so that no file of the manifest can replace them.
        (incoming / CONFIG).write_text(json.dumps(served_config(manifest), indent=2))
        (incoming / MANIFEST).write_bytes(manifest.to_json())
    return folder


def check(folder: Path, manifest: Manifest) -> None:
    """Raise InvalidCheckpoint naming each file that differs from the manifest's.

    The server reads chat template, tokenizer and config from this folder, and no figure of a gate
    would reveal a change in them.
    """
    expected = {**manifest.files, MANIFEST: manifest.digest}
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    problems = []
    for name in sorted({*expected, CONFIG, *contents}):
        if name not in contents:
            detail = "is missing"
        elif name == CONFIG:
            if _json(contents[name]) == served_config(manifest):
                continue
            detail = "differs from the manifest's config"
        elif name not in expected:
            detail = "does not belong to this checkpoint"
        elif (digest := hashlib.sha256(contents[name]).hexdigest()) != expected[name]:
            detail = f"has SHA-256 {digest}, expected {expected[name]}"
        else:
            continue
        problems.append(Problem(pointer("files", name), detail))
    if problems:
        message = f"{folder} was changed: remove it, and it will be made again"
        raise InvalidCheckpoint(message, problems=tuple(problems))


def served_config(manifest: Manifest) -> dict[str, Any]:
    """Return the `config.json` that vLLM reads: that of the checkpoint, without dynamic scaling.

    In transformers, dynamic scaling of positions begins beyond the model's context, which is never
    served. vLLM scales within the context too, and would compute another network.
    """
    config = manifest.config
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(rope, dict) or "dynamic" not in (rope.get("rope_type"), rope.get("type")):
        return config
    plain = {"rope_type": "default", "rope_theta": manifest.architecture.rope_theta}
    kept = {name: value for name, value in config.items() if name != "rope_scaling"}
    return kept | {"rope_parameters": plain}


def _json(data: bytes) -> object:
    """Parse JSON; return None when it is invalid."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder."""
    return Manifest.from_json((folder / MANIFEST).read_bytes())
