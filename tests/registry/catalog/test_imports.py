"""Adapters are announced, sent and handed to a worker like checkpoints.

Covers: registry.imports.announcements.
"""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs
from registry.catalog import documents, experts, imports, uploads
from registry.catalog.uploads import ExpertUpload
from registry.checkpoints.admission import Shard
from registry.database.tables import VersionState
from registry.errors import Conflict, InvalidCheckpoint
from registry.imports.announcements import AdapterAnnouncement
from registry.imports.sources import Source
from registry.ingest.adapter_folder import AdapterFolder
from tests import factories, tiny, tiny_adapters
from tests.registry.catalog import uploading
from tests.registry.catalog.uploading import SENDER, digest_of

SAMPLE = documents.serialize(tiny.sample_documents(expert=1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_adapters.write(tmp_path / "adapter")


@pytest.fixture(autouse=True)
def family(session: Session, blobs: LocalBlobs) -> None:
    factories.make_family(session, blobs)


def begin(session: Session, blobs: LocalBlobs, folder: Path, **changes: Any) -> ExpertUpload:
    announced = AdapterFolder.read(folder).announcement
    adapter = {**announced, "weights": Shard(**announced["weights"]), **changes}
    return imports.begin_import(
        session,
        blobs,
        expert="law",
        family="tiny",
        license="CC0-1.0",
        description="",
        announced=AdapterAnnouncement(**adapter),
        documents=digest_of(SAMPLE),
        sender=SENDER,
    )


def send(session: Session, blobs: LocalBlobs, folder: Path) -> None:
    for source in AdapterFolder.read(folder).sources.values():
        uploading.send(session, blobs, b"".join(source.chunks()))
    uploading.send(session, blobs, SAMPLE)


def test_an_adapter_is_sent_and_handed_to_a_worker(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    upload = begin(session, blobs, folder)
    assert upload.version.state is VersionState.UPLOADING
    assert upload.version.manifest_digest is None
    assert upload.version.imported_from == "LoRA adapter of rank 4 on down_proj, q_proj (2 layers)"
    assert set(upload.missing) == {
        *AdapterFolder.read(folder).sources,
        digest_of(SAMPLE),
    }
    with pytest.raises(Conflict, match="1 blobs were not sent yet"):
        uploading.complete_expert(session, blobs)
    send(session, blobs, folder)
    assert uploading.complete_expert(session, blobs).state is VersionState.IMPORTING
    assert begin(session, blobs, folder).missing == []
    assert begin(session, blobs, folder).version.id == upload.version.id


def test_a_failed_import_is_tried_again_and_one_that_ended_is_checked(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    version = begin(session, blobs, folder).version
    send(session, blobs, folder)
    uploading.complete_expert(session, blobs)
    experts.report(session, version.id, progress="merging")
    assert "merging" in (version.progress or "")
    experts.mark_failed(session, version.id, error="no space")
    assert version.progress is None

    assert uploading.complete_expert(session, blobs).state is VersionState.IMPORTING
    assert version.num_retries == 1
    digest = tiny.store_manifest(blobs, expert=1).digest
    experts.mark_imported(session, version.id, manifest_digest=digest)
    experts.mark_failed(session, version.id, error="no memory")
    # The import itself has ended.
    assert experts.retry(session, expert="law", number=1).state is VersionState.CHECKING


def test_a_checkpoint_that_a_worker_made_need_not_be_sent(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    version = begin(session, blobs, folder).version
    send(session, blobs, folder)
    uploading.complete_expert(session, blobs)
    digest = tiny.store_manifest(blobs, expert=1).digest
    experts.mark_imported(session, version.id, manifest_digest=digest)
    experts.mark_failed(session, version.id, error="no memory")
    assert uploading.complete_expert(session, blobs).state is VersionState.CHECKING


def test_an_adapter_that_a_worker_fetched_need_not_be_sent(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    version = begin(session, blobs, folder).version
    uploading.send(session, blobs, SAMPLE)
    assert version.source is not None
    digest = tiny.store_manifest(blobs, expert=1).digest
    fetched = version.source | {"address": "hf:owner/adapter"}
    version.state = VersionState.IMPORTING
    experts.mark_imported(session, version.id, manifest_digest=digest, source=fetched)
    experts.mark_failed(session, version.id, error="no memory")
    assert uploading.complete_expert(session, blobs).state is VersionState.CHECKING


def test_another_adapter_is_another_version(
    session: Session, blobs: LocalBlobs, folder: Path, tmp_path: Path
) -> None:
    begin(session, blobs, folder)
    other = tiny_adapters.write(tmp_path / "other", lora_alpha=16)
    assert begin(session, blobs, other).version.number == 2


def test_an_adapter_keeps_its_source_and_frees_what_it_only_replaced(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    content = begin(session, blobs, folder).version.source
    assert content is not None
    source = Source.from_json(content)
    assert source.kept() == {"adapter_model.safetensors": source.digest}


def test_an_adapter_without_a_digest_is_refused(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    with pytest.raises(InvalidCheckpoint) as caught:
        begin(session, blobs, folder, digest="x")
    assert caught.value.problems[0].pointer == "/digest"


def test_a_version_has_no_checkpoint_while_it_is_imported(
    session: Session, blobs: LocalBlobs, folder: Path
) -> None:
    version = begin(session, blobs, folder).version
    with pytest.raises(Conflict, match="law@1 is uploading"):
        experts.checkpoint_digest(version)
    with pytest.raises(Conflict):
        uploads.check_expert_version(blobs, version)
