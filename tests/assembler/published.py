"""Finished mixes in the state in which their jobs leave them."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from assembler.assembly.inputs import gather
from assembler.assembly.provenance import Environment
from assembler.jobs import pipeline
from assembler.mixes import mix_state, publishing
from assembler.recipes.recipe import Recipe
from assembler.tables import MixState, MixVersion
from engine.gates.mix_gate import GateReport
from engine.gates.policy import Policy
from engine.gates.report import Failure, provenance
from registry.blobs.blobs import BlobStore, put_bytes
from registry.checkpoints import manifests
from registry.checkpoints.manifests import canonical_json


def publish(session: Session, blobs: BlobStore, version: MixVersion) -> MixVersion:
    """Assemble and publish a mix, with a passing gate report without measurements."""
    assemble(session, blobs, version)
    keep_report(blobs, version, failures=())
    publication = publishing.prepare(session, version, blobs=blobs)
    version.artifact_id = publishing.register(session, version, publication).id
    mix_state.finish(session, version.id, state=MixState.SUCCEEDED)
    return version


def assemble(session: Session, blobs: BlobStore, version: MixVersion) -> None:
    mix = pipeline.assemble(gather(session, Recipe.model_validate(version.recipe)), blobs)
    version.assembled_digest = manifests.store(blobs, mix)
    version.environment = Environment.here().model_dump()


def keep_report(blobs: BlobStore, version: MixVersion, *, failures: Sequence[Failure]) -> None:
    """Store a gate report without measurements."""
    assert version.assembled_digest is not None
    report = GateReport(
        **provenance(),
        policy=Policy(),
        manifest_digest=version.assembled_digest,
        stages={},
        passed=not failures,
        failures=tuple(failures),
        domains=(),
    )
    version.gate_report_digest = put_bytes(blobs, canonical_json(report.model_dump(mode="json")))
