"""The small folder that a vLLM server is pointed at: config, tokenizer, manifest, no tensors."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from registry.blobs import BlobStore
from registry.errors import InvalidCheckpoint, Problem, pointer
from registry.manifests import Manifest

MANIFEST_FILE = "manifest.json"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"


def materialise(manifest: Manifest, blobs: BlobStore, *, root: Path) -> Path:
    """The folder of a manifest below `root`, named by its digest; made when it is not there.

    Raises InvalidCheckpoint when a file of the manifest would land outside, and as `check` for a
    folder that was there; NotFound when bytes are missing.
    """
    folder = root / manifest.digest
    if folder.exists():
        check(folder, manifest)
        return folder
    root.mkdir(parents=True, exist_ok=True)
    incoming = Path(tempfile.mkdtemp(dir=root, prefix="incoming-"))
    try:
        for name, digest in manifest.files.items():
            if Path(name).name != name or name in ("", ".."):
                raise InvalidCheckpoint(f"{name!r} is not a plain file name")
            shutil.copyfile(blobs.local_path(digest), incoming / name)
        # Last, so that no file of the manifest can take their place.
        (incoming / CONFIG_FILE).write_text(json.dumps(manifest.config, indent=2))
        (incoming / MANIFEST_FILE).write_bytes(manifest.to_json())
        _publish(incoming, folder)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return folder


def check(folder: Path, manifest: Manifest) -> None:
    """Raises InvalidCheckpoint, naming each file that is not the manifest's: chat template,
    tokenizer and config are taken from here, and no figure of a gate tells them."""
    expected = {**manifest.files, MANIFEST_FILE: manifest.digest}
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    problems = []
    for name in sorted({*expected, CONFIG_FILE, *found}):
        if name not in found:
            detail = "is missing"
        elif name == CONFIG_FILE:
            if _json(found[name]) == manifest.config:
                continue
            detail = "is not the config that the manifest tells"
        elif name not in expected:
            detail = "is not of this checkpoint"
        elif (digest := hashlib.sha256(found[name]).hexdigest()) != expected[name]:
            detail = f"has SHA-256 {digest}, expected {expected[name]}"
        else:
            continue
        problems.append(Problem(pointer("files", name), detail))
    if problems:
        message = f"{folder} was changed since it was made: remove it, and it is made anew"
        raise InvalidCheckpoint(message, problems=tuple(problems))


def _json(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def read_manifest(folder: Path) -> Manifest:
    return Manifest.from_json((folder / MANIFEST_FILE).read_bytes())


def _publish(incoming: Path, folder: Path) -> None:
    try:
        os.rename(incoming, folder)
    except OSError:
        # Somebody made the same folder meanwhile: the digest says that it is equal.
        if not folder.exists():
            raise
