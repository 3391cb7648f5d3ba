"""What a mix leaves behind: its gate report, compression, provenance, override, signature."""

from collections.abc import Sequence
from typing import Any

from assembler.mixes.waivers import Waiver
from engine.compression.int8_curve import Curve
from engine.gates.mix_gate import GateReport
from registry.checkpoints.attestations import Attestation
from service.client.connection import Connection
from service.schemas.checkpoints import SigningKeyBody
from service.schemas.mixes import MixBody


class MixRecords:
    """The part of the client that reads the records of a mix, and overrides its gate."""

    _connection: Connection

    def gate_report(self, mix: MixBody) -> GateReport:
        """Return what the gate of a mix measured. Raises NotFound before its gate has run."""
        return GateReport.model_validate(self._connection.get(f"{mix_path(mix)}/gate-report"))

    def compression(self, mix: MixBody) -> Curve:
        """Return the sizes that the compression of a mix tried. Raises NotFound without one."""
        return Curve.model_validate(self._connection.get(f"{mix_path(mix)}/compression"))

    def provenance(self, mix: MixBody) -> dict[str, Any]:
        """Return what a published mix can be made from again. Raises NotFound."""
        content: dict[str, Any] = self._connection.get(f"{mix_path(mix)}/provenance")
        return content

    def override(self, mix: MixBody, *, scope: Sequence[Waiver], reason: str) -> MixBody:
        """Publish a mix that its gate refused. Raises Conflict, InvalidInput."""
        body = {"scope": [waiver.model_dump() for waiver in scope], "reason": reason}
        return MixBody.model_validate(self._connection.post(f"{mix_path(mix)}/override", body))

    def attestation(self, mix: MixBody) -> Attestation:
        """Return the signed statement about a published mix. Raises NotFound without one."""
        return Attestation.model_validate(self._connection.get(f"{mix_path(mix)}/attestation"))

    def signing_key(self) -> str:
        """Return the public key of the service's signatures, in hexadecimal."""
        return SigningKeyBody.model_validate(self._connection.get("/signing-key")).public_key


def mix_path(mix: MixBody) -> str:
    """Return the path of a version below `/api/v1`."""
    return f"/mixes/{mix.name}/versions/{mix.version}"
