"""Fetch what a version is imported from, and make its checkpoint, as its owner's client would.

Whoever may publish says what is fetched, so nothing inside the server's network is, and nothing
with the permissions of the user of this machine.
"""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

from assembler.jobs.imports import Imported, OnProgress, from_adapter, from_gguf
from assembler.time_limit import time_limit
from registry.blobs.blobs import BlobStore, get_bytes
from registry.checkpoints import manifests
from registry.checkpoints.admission import Shard
from registry.checkpoints.file_names import ADAPTER_TENSORS, TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.database.tables import ExpertVersion
from registry.errors import TimedOut
from registry.fetching import addresses, url_file
from registry.fetching.addresses import HubAddress, UrlAddress
from registry.fetching.fetched import Fetched, progress_text
from registry.fetching.hub import Hub
from registry.imports import gguf_checkpoints, gguf_header
from registry.imports.announcements import AdapterAnnouncement
from registry.imports.sources import Source
from registry.ingest import adapter_folder, gguf_file, header_checks
from registry.ingest.adapter_folder import AdapterFolder
from registry.ingest.checkpoint_folder import CheckpointFolder, check_headers
from registry.ingest.fitting import Seed
from registry.settings import settings

TOKEN_HINT = (
    "the service asks without a token, or its token may not read it; its operator sets one as"
    " NEXUSMIX_HUB_TOKEN"
)


def is_wanted(version: ExpertVersion) -> bool:
    """Tell whether a version is imported from an address."""
    return version.source is not None and version.source["kind"] == "address"


def run(version: ExpertVersion, blobs: BlobStore, *, on_progress: OnProgress) -> Imported:
    """Fetch what lies at the address, and store the tensors of its checkpoint.

    Raises NotFound, Forbidden, InvalidInput, TooLarge, InvalidCheckpoint and Incompatible for what
    cannot be imported, OutOfSpace, and Unavailable if it does not arrive.
    """
    assert version.source is not None
    source = Source.from_json(version.source)
    seed = manifests.load(blobs, version.expert.family.seed_digest)
    known = Seed(manifest=seed, read_tokenizer=partial(get_bytes, blobs, seed.files[TOKENIZER]))
    cache = settings().asked_imports_path / str(version.id)
    fetched = _fetch(source, cache, known, on_progress)
    source = replace(source, origin=fetched.origin)
    path = fetched.path
    if path.suffix == gguf_file.SUFFIX:
        imported = _gguf(source, path, seed, blobs, on_progress)
    elif adapter_folder.is_adapter(path):
        imported = _adapter(source, path, seed, blobs, on_progress)
    else:
        on_progress("reading what was fetched")
        imported = _checkpoint(source, path, known, blobs)
    shutil.rmtree(cache)
    return imported


def _fetch(source: Source, cache: Path, seed: Seed, on_progress: OnProgress) -> Fetched:
    # Only a worker needs this; the library takes a third of a second to load.
    from registry.fetching.outward import only_outward

    def check(path: Path) -> None:
        on_progress("comparing headers with the family")
        header_checks.check(path, seed)

    def on_bytes(num_there: int, num_bytes: int) -> None:
        on_progress(progress_text(num_there, num_bytes))

    address, rules = addresses.parse(source.address or ""), settings()
    max_bytes = rules.max_upload_bytes
    outward = only_outward(
        rules.allowed_origins,
        bytes_per_second=rules.min_upload_bytes_per_second,
        grace_seconds=rules.body_seconds,
    )
    late = TimedOut(f"the fetch took longer than {rules.upload_seconds:g} s; what came is kept")
    with time_limit(rules.upload_seconds, late), outward:
        if not isinstance(address, HubAddress):
            assert isinstance(address, UrlAddress), "others are refused at their announcement"
            return url_file.fetch(
                address, cache, max_bytes=max_bytes, check=check, on_progress=on_bytes
            )
        token = None if rules.hub_token is None else rules.hub_token.get_secret_value()
        hub = Hub(
            endpoint=rules.hub_endpoint,
            token=token or False,
            token_hint=TOKEN_HINT,
            max_bytes=max_bytes,
        )
        return hub.fetch(address, cache, check=check, on_progress=on_bytes)


def _checkpoint(source: Source, folder: Path, seed: Seed, blobs: BlobStore) -> Imported:
    check_headers(folder, seed=seed)
    kept = CheckpointFolder.read(folder, seed=seed).keep(blobs, seed=seed.manifest)
    notes = replace(kept.notes, origin=source.origin)
    return Imported(manifest=replace(kept, notes=notes), source=source)


def _adapter(
    source: Source, folder: Path, seed: Manifest, blobs: BlobStore, on_progress: OnProgress
) -> Imported:
    read = AdapterFolder.read(folder)
    about = read.announcement
    announced = AdapterAnnouncement(
        config=about["config"],
        weights=Shard(**about["weights"]),
        digest=about["digest"],
        files=about["files"],
        origin=source.origin,
    )
    summary = announced.check(seed)
    found = replace(announced.source(), address=source.address)
    for digest in found.digests():
        blobs.put(read.sources[digest].chunks(), digest=digest)
    path = folder / ADAPTER_TENSORS
    manifest = from_adapter(found, path, seed, blobs, on_progress=on_progress)
    return Imported(manifest=manifest, source=found, summary=summary)


def _gguf(
    source: Source, path: Path, seed: Manifest, blobs: BlobStore, on_progress: OnProgress
) -> Imported:
    summary = gguf_checkpoints.summary(gguf_checkpoints.plan(gguf_header.read(path), seed))
    manifest = from_gguf(source, path, seed, blobs, on_progress=on_progress)
    return Imported(manifest=manifest, source=source, summary=summary)
