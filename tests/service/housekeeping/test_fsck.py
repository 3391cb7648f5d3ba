"""Every missing or damaged blob is found, with what needs it."""

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints import manifests
from registry.database.tables import VersionState
from service.housekeeping import fsck, needed_blobs
from service.housekeeping.fsck import Fault, Finding
from tests import seaweed
from tests.assembler import rows
from tests.registry.blobs.test_s3 import open_for
from tests.service.housekeeping import stored_mix


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.SeaweedServer]:
    with seaweed.SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


def check(session: Session, blobs: LocalBlobs, *, quick: bool = False) -> list[Finding]:
    needed = needed_blobs.find(session, blobs)
    return list(fsck.check(blobs, needed, on_bytes=lambda _: None, quick=quick))


def test_a_whole_store_has_no_findings(session: Session, blobs: LocalBlobs) -> None:
    stored_mix.add(session, blobs)
    assert check(session, blobs) == check(session, blobs, quick=True) == []


def test_missing_and_damaged_blobs_are_named(session: Session, blobs: LocalBlobs) -> None:
    mix = stored_mix.add(session, blobs)
    assert mix.assembled_digest is not None
    tensors = manifests.load(blobs, mix.assembled_digest).tensors
    lost = tensors["model.layers.0.mlp.experts.0.up_proj.weight"].digest
    bad = tensors["model.layers.1.mlp.gate.weight"].digest
    blobs.discard(lost)
    stored_mix.damage(blobs.local_path(bad))
    found = {finding.digest: finding for finding in check(session, blobs)}
    assert found.keys() == {lost, bad}
    assert found[lost].fault is Fault.MISSING
    assert "expert expert-1@1: tensor model.layers.0.mlp.up_proj.weight" in str(found[lost])
    assert found[bad].fault is Fault.DAMAGED
    assert "mix both@1: tensor model.layers.1.mlp.gate.weight" in str(found[bad])


def test_a_quick_check_sees_sizes(session: Session, blobs: LocalBlobs) -> None:
    mix = stored_mix.add(session, blobs)
    assert mix.assembled_digest is not None
    tensors = manifests.load(blobs, mix.assembled_digest).tensors
    flipped, cut = (tensors[f"model.layers.{i}.mlp.gate.weight"].digest for i in (0, 1))
    stored_mix.damage(blobs.local_path(flipped))
    path = blobs.local_path(cut)
    path.chmod(0o644)
    path.write_bytes(b"short")
    assert [finding.digest for finding in check(session, blobs, quick=True)] == [cut]


def test_a_damaged_blob_that_nothing_needs_is_found(session: Session, blobs: LocalBlobs) -> None:
    stored_mix.damage(blobs.local_path(digest := put_bytes(blobs, b"needless")))
    [finding] = check(session, blobs)
    assert finding == Finding(digest, Fault.DAMAGED, ())
    assert str(finding).endswith("nothing needs it")


def test_an_upload_that_goes_on_misses_nothing(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    version = rows.add_expert(session, blobs, family, number=1, embedded=False)
    blobs.discard(version.documents_digest)
    version.state = VersionState.UPLOADING
    session.flush()
    assert check(session, blobs) == check(session, blobs, quick=True) == []
    version.state = VersionState.READY
    session.flush()
    assert [finding.digest for finding in check(session, blobs)] == [version.documents_digest]


def test_a_blob_that_was_set_aside_is_not_missing(session: Session, blobs: LocalBlobs) -> None:
    mix = stored_mix.add(session, blobs)
    assert mix.assembled_digest is not None
    blobs.set_aside(mix.assembled_digest)
    assert check(session, blobs) == []


def test_the_bucket_is_checked_and_not_the_cache(
    session: Session, server: seaweed.SeaweedServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_for(server, tmp_path_factory.mktemp("home"))
    mix = stored_mix.add(session, store)
    assert mix.gate_report_digest is not None
    key = f"blobs/{mix.gate_report_digest}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"rotten")
    needed = needed_blobs.find(session, store)
    [finding] = fsck.check(store, needed, on_bytes=lambda _: None)
    assert (finding.digest, finding.fault) == (mix.gate_report_digest, Fault.DAMAGED)
