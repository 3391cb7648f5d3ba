"""A failed gate is overridden for exactly its missed limits, with a record.

Covers: waivers.
"""

import re

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mix_state, mixes, overrides
from assembler.mixes.new_mix import NewMix
from assembler.mixes.waivers import Waiver
from assembler.tables import MixState, MixVersion
from engine.gates.report import Failure
from engine.serving.deployments import find_by_model
from registry.blobs.blobs import LocalBlobs, get_bytes
from registry.catalog import artifacts
from registry.checkpoints.attestations import Attestation
from registry.errors import Conflict, InvalidInput
from tests.assembler import rows
from tests.assembler.published import assemble, keep_report

FAILURES = (
    Failure(domain="expert-1", metric="served.fdt_75", value=3, limit="at least", threshold=24),
    Failure(
        domain="expert-2", metric="served.dppl_ratio", value=2, limit="at most", threshold=1.01
    ),
)
SCOPE = [Waiver(domain=f.domain, metric=f.metric) for f in FAILURES]
REASON = "for the demonstration alone"


@pytest.fixture
def refused(session: Session, blobs: LocalBlobs) -> MixVersion:
    """Make `mine@1`: assembled, to be deployed, with a failed gate."""
    rows.add_all(session, blobs)
    request = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
    version = mixes.request(session, blobs, request, deploy=True)
    assemble(session, blobs, version)
    keep_report(blobs, version, failures=FAILURES)
    mix_state.finish(
        session, version.id, state=MixState.FAILED, error="; ".join(map(str, FAILURES))
    )
    return version


def override(
    session: Session, blobs: LocalBlobs, *, scope: list[Waiver] = SCOPE, reason: str = REASON
) -> MixVersion:
    return overrides.override(session, blobs, "mine@1", scope=scope, reason=reason, by="anna")


@pytest.mark.usefixtures("refused")
def test_an_override_is_published_with_person_and_reason(
    session: Session, blobs: LocalBlobs
) -> None:
    version = override(session, blobs)
    assert (version.state, version.error) == (MixState.SUCCEEDED, None)
    assert version.artifact_id is not None
    artifact = artifacts.get(session, version.artifact_id)
    assert artifact.attestation_digest is not None
    data = get_bytes(blobs, artifact.attestation_digest)
    attestation = Attestation.model_validate_json(data)
    assert attestation.is_genuine
    assert attestation.statement.override == version.override_digest
    record = overrides.read(version, blobs)
    assert record is not None
    assert (record.by, record.reason, list(record.scope)) == ("anna", REASON, SCOPE)
    assert find_by_model(session, "mine").artifact_id == artifact.id


@pytest.mark.usefixtures("refused")
def test_a_repeated_override_changes_nothing(session: Session, blobs: LocalBlobs) -> None:
    first = override(session, blobs).override_digest
    assert override(session, blobs).override_digest == first
    with pytest.raises(Conflict, match="mine@1 is succeeded"):
        override(session, blobs, reason="another")


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("scope", "reason", "pointer", "words"),
    [
        (
            SCOPE[:1],
            REASON,
            "/scope",
            "leaves out expert-2:served.dppl_ratio: .* is 2, at most 1.01",
        ),
        (
            [*SCOPE, Waiver(domain="expert-1", metric="served.dppl_ratio")],
            REASON,
            "/scope/2",
            "did not fail",
        ),
        (SCOPE, " ", "/reason", "say why"),
    ],
)
def test_limits_that_are_left_out_are_named(
    session: Session,
    blobs: LocalBlobs,
    scope: list[Waiver],
    reason: str,
    pointer: str,
    words: str,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        override(session, blobs, scope=scope, reason=reason)
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert re.search(words, problem.detail)
    assert mixes.get(session, "mine@1").state is MixState.FAILED


def test_only_a_failed_gate_can_be_overridden(
    session: Session, blobs: LocalBlobs, refused: MixVersion
) -> None:
    keep_report(blobs, refused, failures=())
    with pytest.raises(Conflict, match="has passed its gate"):
        override(session, blobs)
    refused.gate_report_digest = None
    with pytest.raises(Conflict, match="only what its gate has refused"):
        override(session, blobs)


def test_a_waiver_has_the_name_of_the_missed_limit() -> None:
    assert str(Waiver.parse("go:served.fdt_75")) == "go:served.fdt_75"
    with pytest.raises(InvalidInput, match="is not DOMAIN:METRIC"):
        Waiver.parse("fdt_75")
