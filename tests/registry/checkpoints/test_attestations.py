"""Only the signed statement, with its signature and key, is genuine."""

import stat
from pathlib import Path

import pytest

from registry.checkpoints.attestations import Attestation, Statement, public_key, signing_key

STATEMENT = Statement(manifest="a" * 64, recipe="b" * 64, gate_report="c" * 64, lock="d" * 64)


@pytest.fixture
def attestation(tmp_path: Path) -> Attestation:
    return Attestation.of(STATEMENT, signing_key(tmp_path / "key.pem"))


def test_a_signed_statement_is_genuine(attestation: Attestation) -> None:
    assert Attestation.model_validate_json(attestation.to_json()).is_genuine


@pytest.mark.parametrize("field", ["manifest", "recipe", "gate_report", "lock"])
def test_a_changed_statement_is_not_genuine(attestation: Attestation, field: str) -> None:
    other = STATEMENT.model_copy(update={field: "e" * 64})
    assert not attestation.model_copy(update={"statement": other}).is_genuine


@pytest.mark.parametrize("changed", ["", "00", "no hexadecimal", "0" * 128])
def test_a_changed_signature_is_not_genuine(attestation: Attestation, changed: str) -> None:
    assert not attestation.model_copy(update={"signature": changed}).is_genuine


def test_another_key_is_not_genuine(attestation: Attestation, tmp_path: Path) -> None:
    other = public_key(signing_key(tmp_path / "other.pem"))
    assert not attestation.model_copy(update={"public_key": other}).is_genuine


def test_the_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "key.pem"
    assert public_key(signing_key(path)) == public_key(signing_key(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
