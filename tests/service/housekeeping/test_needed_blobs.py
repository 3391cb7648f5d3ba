"""Blobs are needed by rows, by manifests, and by the provenance of an artifact."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

import assembler.tables
import engine.serving.tables
import registry.database.tables
import service.tables
from assembler.assembly.provenance import Provenance
from engine.serving.tables import Deployment, DeploymentState
from registry.blobs.blobs import LocalBlobs
from registry.catalog import kept_documents
from registry.checkpoints import manifests
from registry.database.db import Base
from registry.database.tables import Artifact, ExpertVersion, Family, Projection, VersionState
from registry.imports.sources import Source
from registry.settings import settings
from service.housekeeping import needed_blobs
from tests.assembler import rows
from tests.service.housekeeping import stored_mix

TABLES = (registry.database.tables, engine.serving.tables, assembler.tables, service.tables)
# Digests of inputs or of software, and digests that somebody may use, which need no blob.
NO_BLOBS = {
    "sent_blobs.digest",
    "downloadable_blobs.digest",
    "blob_faults.digest",
    "domain_embeddings.embedder_digest",
    "domain_embeddings.states_embedder_digest",
    "projections.inputs_digest",
    "projections.embedder_digest",
    "artifacts.recipe_digest",
    "mix_versions.recipe_digest",
    "idempotent_requests.body_digest",
}
BLOBS = {
    "families.seed_digest",
    "expert_versions.manifest_digest",
    "expert_versions.documents_digest",
    "domain_embeddings.states_digest",
    "domain_embeddings.moments_digest",
    "projections.documents_digest",
    "projections.manifest_digest",
    "artifacts.manifest_digest",
    "artifacts.gate_report_digest",
    "artifacts.provenance_digest",
    "artifacts.attestation_digest",
    "mix_versions.assembled_digest",
    "mix_versions.finetuned_digest",
    "mix_versions.compressed_digest",
    "mix_versions.curve_digest",
    "mix_versions.gate_report_digest",
    "mix_versions.override_digest",
    "deployments.manifest_digest",
}


def test_every_column_of_a_digest_is_known() -> None:
    columns = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if "digest" in column.name
    }
    assert columns == BLOBS | NO_BLOBS, (
        "a new column of blobs must be yielded by needed_blobs.roots, or they are removed"
    )


def test_every_column_of_blobs_is_a_root(session: Session, blobs: LocalBlobs) -> None:
    version = stored_mix.add(session, blobs)
    session.add(Deployment(model="both", ref="both@1", manifest_digest="0" * 64))
    session.flush()
    fakes: dict[str, str] = {}
    for column in sorted(BLOBS):
        table, name = column.split(".")
        fakes[column] = f"{len(fakes):064x}"
        model = {m.class_.__table__.name: m.class_ for m in Base.registry.mappers}[table]
        row = session.query(model).first()
        setattr(row, name, fakes[column])
    session.flush()
    found = {root.digest for root in needed_blobs.roots(session)}
    assert set(fakes.values()) <= found, version


def test_a_stopped_deployment_needs_nothing(session: Session, blobs: LocalBlobs) -> None:
    session.add(
        Deployment(
            model="both", ref="both@1", manifest_digest="1" * 64, state=DeploymentState.STOPPED
        )
    )
    session.flush()
    assert not [root for root in needed_blobs.roots(session) if root.digest == "1" * 64]


def test_all_blobs_of_a_published_mix_are_needed(session: Session, blobs: LocalBlobs) -> None:
    stored_mix.add(session, blobs)
    needed = needed_blobs.find(session, blobs)
    assert needed.needed_by.keys() == {blob.digest for blob in blobs.stored()}
    assert not needed.unread


def test_needs_are_named(session: Session, blobs: LocalBlobs) -> None:
    mix = stored_mix.add(session, blobs)
    assert mix.assembled_digest is not None
    needed = needed_blobs.find(session, blobs)
    norm = manifests.load(blobs, mix.assembled_digest).tensors["model.norm.weight"]
    reasons = needed.needed_by[norm.digest]
    assert "family tiny: tensor model.norm.weight" in reasons
    assert "mix both@1: assembled manifest" in needed.needed_by[mix.assembled_digest]
    assert needed.sizes[norm.digest] == norm.num_bytes


def test_the_provenance_of_an_artifact_needs_its_inputs(
    session: Session, blobs: LocalBlobs
) -> None:
    stored_mix.add(session, blobs)
    before = needed_blobs.find(session, blobs).needed_by.keys()
    artifact = session.query(Artifact).one()
    kept = artifact.provenance_digest
    artifact.provenance_digest = None
    for projection in session.query(Projection):
        session.delete(projection)
    session.flush()
    without = needed_blobs.find(session, blobs).needed_by.keys()
    artifact.provenance_digest = kept
    session.flush()
    needed = needed_blobs.find(session, blobs)
    assert len(needed.needed_by) > len(without)
    assert any("provenance, projection" in r for rs in needed.needed_by.values() for r in rs)
    assert needed.needed_by.keys() <= before


def test_every_field_of_a_provenance_is_known() -> None:
    no_blobs = {"schema_version", "recipe", "vectors_shape", "environment"}
    named = {*needed_blobs.PROVENANCE_MANIFESTS, *needed_blobs.PROVENANCE_BYTES}
    assert named == Provenance.model_fields.keys() - no_blobs, (
        "what a new field names must be needed, or it is removed"
    )


def test_a_manifest_that_cannot_be_read_is_reported(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    stored_mix.damage(blobs.local_path(family.seed_digest))
    needed = needed_blobs.find(session, blobs)
    assert needed.unread == [family.seed_digest]
    assert needed.needed_by == {family.seed_digest: ["family tiny: manifest"]}


def test_a_source_is_needed_until_it_is_imported_and_an_adapter_longer(
    session: Session, blobs: LocalBlobs
) -> None:
    family = rows.add_family(session, blobs)
    version = rows.add_expert(session, blobs, family, number=1, embedded=False)
    source = Source(kind="adapter", digest="a" * 64, size=1, files={"x.json": "b" * 64})
    version.source = source.to_json()
    session.flush()
    needed = needed_blobs.find(session, blobs).needed_by
    assert (source.digest in needed, "b" * 64 in needed) == (True, False)

    version.manifest_digest, version.state = None, VersionState.IMPORTING
    session.flush()
    assert source.digests() <= needed_blobs.find(session, blobs).needed_by.keys()


def test_an_old_upload_needs_nothing(session: Session, blobs: LocalBlobs) -> None:
    family = rows.add_family(session, blobs)
    version = rows.add_expert(session, blobs, family, number=1, embedded=False)
    version.state = family.state = VersionState.UPLOADING
    session.flush()
    assert version.manifest_digest in needed_blobs.find(session, blobs).needed_by
    old = datetime.now(UTC) - timedelta(days=settings().upload_days, seconds=1)
    for row in (*session.query(ExpertVersion), *session.query(Family)):
        row.created_at = old
    session.flush()
    assert not needed_blobs.find(session, blobs).needed_by


def test_what_was_ready_once_stays(session: Session, blobs: LocalBlobs) -> None:
    """A version that cannot be embedded again may be in mixes."""
    family = rows.add_family(session, blobs)
    version = rows.add_expert(session, blobs, family, number=1, embedded=False)
    version.state, version.ready_at = VersionState.FAILED, datetime.now(UTC)
    version.created_at = datetime.now(UTC) - timedelta(days=1000)
    session.flush()
    assert version.manifest_digest in needed_blobs.find(session, blobs).required


def test_forgotten_documents_are_needed_by_nothing(session: Session, blobs: LocalBlobs) -> None:
    """Also not by the provenance of a mix that was made with them."""
    stored_mix.add(session, blobs)
    for projection in session.query(Projection):
        session.delete(projection)
    versions = session.query(ExpertVersion).order_by(ExpertVersion.id).all()
    before = needed_blobs.find(session, blobs)
    kept_documents.forget(session, versions[0].id)
    after = needed_blobs.find(session, blobs)
    assert before.needed_by.keys() - after.needed_by.keys() == {versions[0].documents_digest}
    assert versions[0].documents_digest not in after.required

    # Another version that keeps the same documents needs them.
    versions[1].documents_digest = versions[0].documents_digest
    session.flush()
    assert versions[0].documents_digest in needed_blobs.find(session, blobs).required
