"""Signed statements of a service about a checkpoint that it published.

Digests show that bytes are complete. The signature shows who states that these bytes passed a gate.
It is Ed25519 (RFC 8032) over the canonical JSON of the statement.
"""

from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, ConfigDict

from registry import private_files
from registry.checkpoints.manifests import canonical_json


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Statement(_Data):
    """SHA-256 digests of the manifest, recipe, gate report and lock of a checkpoint.

    `lock` is the digest of its provenance. `override` is the digest of the record that published
    the checkpoint although its gate failed.
    """

    schema_version: Literal[1] = 1
    manifest: str
    recipe: str
    gate_report: str
    lock: str
    override: str | None = None

    def to_json(self) -> bytes:
        """Return the canonical JSON, which is signed."""
        return canonical_json(self.model_dump(mode="json"))


class Attestation(_Data):
    """A statement with the public key of its author and its signature, both in hexadecimal."""

    statement: Statement
    public_key: str
    signature: str

    @classmethod
    def of(cls, statement: Statement, key: Ed25519PrivateKey) -> Self:
        """Sign a statement."""
        return cls(
            statement=statement,
            public_key=public_key(key),
            signature=key.sign(statement.to_json()).hex(),
        )

    @property
    def is_genuine(self) -> bool:
        """Tell whether the owner of `public_key` signed this statement."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), self.statement.to_json())
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> bytes:
        """Return the canonical JSON."""
        return canonical_json(self.model_dump(mode="json"))


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public key of a private key in hexadecimal."""
    return key.public_key().public_bytes_raw().hex()


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the private key at `path`; the first call creates it, readable by its owner only."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _create_key(path)
    key = load_pem_private_key(data, password=None)
    assert isinstance(key, Ed25519PrivateKey), f"{path} holds another kind of key"
    return key


def _create_key(path: Path) -> Ed25519PrivateKey:
    """Create the key file atomically; if another process was faster, return its key."""
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key if private_files.write_new(path, data) else signing_key(path)
