"""Publish a mix whose gate failed, with a signed record: by whom, for which limits, and why."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from assembler.mixes import mix_state, mixes, publishing, retention
from assembler.mixes.waivers import Override, Waiver
from assembler.tables import MixState, MixVersion
from engine.gates.mix_gate import GateReport
from engine.serving import deployments
from registry.blobs.blobs import BlobStore, get_bytes, put_bytes
from registry.checkpoints.manifests import canonical_json
from registry.errors import Conflict, InvalidInput, Problem, pointer


def override(
    session: Session, blobs: BlobStore, ref: str, *, scope: Sequence[Waiver], reason: str, by: str
) -> MixVersion:
    """Publish a version whose gate failed, and deploy it if its request says so.

    `scope` must name exactly the limits that failed, so that nobody waives a limit without having
    read it. The same call again changes nothing. Raises NotFound, Conflict if the gate has not
    failed or the candidate is gone, InvalidInput for another scope or without a reason.
    """
    version = mixes.get(session, ref)
    known = read(version, blobs)
    if known is not None and (set(known.scope), known.reason) == (set(scope), reason.strip()):
        return version
    report_digest = version.gate_report_digest
    if version.state is not MixState.FAILED or report_digest is None:
        raise Conflict(f"{ref} is {version.state}; only what its gate has refused is overridden")
    report = GateReport.model_validate_json(get_bytes(blobs, report_digest))
    if report.passed:
        raise Conflict(f"{ref} has passed its gate, and failed later: {version.error}")
    retention.check_kept(version)
    _check(report, scope, reason)
    record = Override(
        gate_report=report_digest, scope=tuple(scope), reason=reason.strip(), by=by, at=_now()
    )
    digest = put_bytes(blobs, canonical_json(record.model_dump(mode="json")))
    publication = publishing.prepare(session, version, blobs=blobs, override_digest=digest)
    version = mix_state.overrule(
        session, version.id, override_digest=digest, message=_summary(record)
    )
    artifact = publishing.register(session, version, publication)
    version.artifact_id = artifact.id
    session.flush()
    version = mixes.get(session, ref)
    if version.deploy:
        deployments.request(session, artifact, model=version.mix.name, ref=mixes.ref_of(version))
    return version


def read(version: MixVersion, blobs: BlobStore) -> Override | None:
    """Return the record of a version's override, None if it has none."""
    if version.override_digest is None:
        return None
    return Override.model_validate_json(get_bytes(blobs, version.override_digest))


def _check(report: GateReport, scope: Sequence[Waiver], reason: str) -> None:
    failed = {Waiver.of(failure): str(failure) for failure in report.failures}
    problems = [
        Problem(pointer("scope"), f"leaves out {waiver}: {detail}")
        for waiver, detail in failed.items()
        if waiver not in scope
    ]
    problems += [
        Problem(pointer("scope", number), f"{waiver} did not fail, so there is nothing to waive")
        for number, waiver in enumerate(scope)
        if waiver not in failed
    ]
    if not reason.strip():
        problems.append(Problem("/reason", "say why the mix may be used all the same"))
    if problems:
        raise InvalidInput("the gate is not overridden", problems=tuple(problems))


def _summary(record: Override) -> str:
    return f"gate overridden by {record.by}: {record.reason}"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
