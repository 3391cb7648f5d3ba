"""Verification names every part of a published mix that was changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import orm

from assembler.mixes import mixes, overrides
from assembler.mixes.new_mix import NewMix
from assembler.mixes.waivers import Waiver
from assembler.tables import MixState, MixVersion
from engine.gates.report import Failure
from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.catalog import artifacts
from registry.checkpoints import exports, manifests
from registry.checkpoints.attestations import Attestation, public_key, signing_key
from registry.checkpoints.file_names import ATTESTATION
from registry.checkpoints.manifests import canonical_json, json_digest
from registry.errors import InvalidInput
from registry.settings import settings
from service.reports import verification
from service.reports.verification import Check
from tests.assembler import rows
from tests.assembler.published import keep_report, publish

FAILURE = Failure(
    domain="expert-1", metric="served.fdt_75", value=3, limit="at least", threshold=24
)


def published(session: orm.Session, blobs: LocalBlobs, *, name: str, **fields: Any) -> MixVersion:
    request = NewMix(name=name, family="tiny", experts=["expert-1", "expert-2"], assembly=fields)
    return publish(session, blobs, mixes.request(session, blobs, request))


@pytest.fixture
def version(session: orm.Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    return published(session, blobs, name="both")


@pytest.fixture
def attestation(session: orm.Session, blobs: LocalBlobs, version: MixVersion) -> Attestation:
    assert version.artifact_id is not None
    digest = artifacts.get(session, version.artifact_id).attestation_digest
    assert digest is not None
    return Attestation.model_validate_json(get_bytes(blobs, digest))


@pytest.fixture
def key() -> str:
    return public_key(signing_key(settings().signing_key_path))


def check(attestation: Attestation, blobs: LocalBlobs, key: str) -> list[Check]:
    return verification.check_version(attestation, blobs, trusted_key=key, on_bytes=lambda _: None)


def broken(checks: list[Check]) -> list[str]:
    return [own.title for own in checks if not own.holds]


def damage(blobs: LocalBlobs, digest: str) -> None:
    path = blobs.local_path(digest)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_an_unchanged_mix_passes(attestation: Attestation, blobs: LocalBlobs, key: str) -> None:
    checks = check(attestation, blobs, key)
    assert broken(checks) == []
    assert {"signature", "tensors", "gate", "provenance", "recipe"} <= {own.title for own in checks}


def test_a_flipped_bit_of_a_tensor_is_found(
    attestation: Attestation, blobs: LocalBlobs, key: str
) -> None:
    manifest = manifests.load(blobs, attestation.statement.manifest)
    name = "model.layers.1.mlp.gate.weight"
    damage(blobs, manifest.tensors[name].digest)
    wrong = [own for own in check(attestation, blobs, key) if not own.holds]
    assert [(check.title, check.detail) for check in wrong] == [
        ("tensors", f"1 damaged or missing: {name}")
    ]


@pytest.mark.parametrize(
    ("record", "title"), [("gate_report", "gate report"), ("lock", "provenance")]
)
def test_a_changed_record_is_found(
    attestation: Attestation, blobs: LocalBlobs, key: str, record: str, title: str
) -> None:
    damage(blobs, getattr(attestation.statement, record))
    assert broken(check(attestation, blobs, key)) == [title]


def test_a_damaged_manifest_is_found(attestation: Attestation, blobs: LocalBlobs, key: str) -> None:
    damage(blobs, attestation.statement.manifest)
    assert verification.num_bytes(attestation, blobs) == 0
    assert broken(check(attestation, blobs, key)) == ["checkpoint"]


def test_a_lost_checkpoint_is_found(attestation: Attestation, blobs: LocalBlobs, key: str) -> None:
    blobs.local_path(attestation.statement.manifest).unlink()
    assert broken(check(attestation, blobs, key)) == ["checkpoint"]


def test_a_report_of_another_mix_is_found(
    attestation: Attestation, blobs: LocalBlobs, key: str, session: orm.Session
) -> None:
    """Somebody with the key attests a mix that was never gated."""
    other = published(session, blobs, name="other", combine="sum")
    assert other.gate_report_digest is not None
    statement = attestation.statement.model_copy(update={"gate_report": other.gate_report_digest})
    forged = Attestation.of(statement, signing_key(settings().signing_key_path))
    assert "report of this checkpoint" in broken(check(forged, blobs, key))


def test_a_recipe_without_newer_fields_passes(
    attestation: Attestation, blobs: LocalBlobs, key: str
) -> None:
    provenance = json.loads(get_bytes(blobs, attestation.statement.lock))
    del provenance["recipe"]["compress"], provenance["compressed"]
    older = {
        "lock": put_bytes(blobs, canonical_json(provenance)),
        "recipe": json_digest(provenance["recipe"]),
    }
    statement = attestation.statement.model_copy(update=older)
    signed = Attestation.of(statement, signing_key(settings().signing_key_path))
    assert broken(check(signed, blobs, key)) == []


def test_an_overridden_gate_passes_with_its_record(
    attestation: Attestation, blobs: LocalBlobs, key: str, session: orm.Session
) -> None:
    version = mixes.get(session, "both@1")
    keep_report(blobs, version, failures=[FAILURE])
    version.state = MixState.FAILED
    scope = [Waiver(domain=FAILURE.domain, metric=FAILURE.metric)]
    overrides.override(session, blobs, "both@1", scope=scope, reason="a trial", by="anna")
    version = mixes.get(session, "both@1")
    assert version.gate_report_digest is not None
    statement = attestation.statement.model_copy(
        update={"gate_report": version.gate_report_digest, "override": version.override_digest}
    )
    own_key = signing_key(settings().signing_key_path)
    checks = check(Attestation.of(statement, own_key), blobs, key)
    assert broken(checks) == []
    assert f"{FAILURE}; overridden by anna: a trial" in [item.detail for item in checks]
    without = statement.model_copy(update={"override": None})
    assert broken(check(Attestation.of(without, own_key), blobs, key)) == ["gate"]


def test_another_signer_is_found(
    attestation: Attestation, blobs: LocalBlobs, tmp_path: Path
) -> None:
    other = public_key(signing_key(tmp_path / "other.pem"))
    checks = check(attestation, blobs, other)
    assert broken(checks) == ["signature"]
    assert f"not by {other}" in checks[0].detail


class TestFolder:
    @pytest.fixture
    def folder(
        self, session: orm.Session, version: MixVersion, blobs: LocalBlobs, tmp_path: Path
    ) -> Path:
        assert version.artifact_id is not None
        artifact = artifacts.get(session, version.artifact_id)
        exports.export(
            manifests.load(blobs, artifact.manifest_digest),
            blobs,
            tmp_path / "exported",
            attestation_digest=artifact.attestation_digest,
            on_bytes=lambda _: None,
        )
        return tmp_path / "exported"

    def check(self, folder: Path, key: str | None = None) -> list[Check]:
        return verification.check_folder(folder, trusted_key=key, on_bytes=lambda _: None)

    def test_an_unchanged_folder_passes(self, folder: Path, key: str) -> None:
        assert broken(self.check(folder, key)) == []
        assert key in self.check(folder)[0].detail

    def test_a_flipped_bit_is_found(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert broken(self.check(folder)) == ["checkpoint"]

    def test_another_config_is_found(self, folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"combine": "sum"}))
        assert broken(self.check(folder)) == ["checkpoint"]

    def test_a_folder_without_an_attestation_is_refused(self, folder: Path) -> None:
        (folder / ATTESTATION).unlink()
        with pytest.raises(InvalidInput, match="has no attestation"):
            self.check(folder)
