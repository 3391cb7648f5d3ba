"""What a service says of a checkpoint that it published, signed with its own key.

Digests alone show that bytes are whole; the signature shows who says that just these passed a gate.
Ed25519 (RFC 8032) over the canonical JSON of the statement.
"""

import os
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

from registry.checkpoints.manifests import canonical_json

# Beside the weights in a folder that is handed out.
FILE = "attestation.json"


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Statement(_Data):
    """By SHA-256: the checkpoint, what was asked for, the report of its gate, its lock, and if its
    gate failed, on whose word it was published."""

    schema_version: Literal[1] = 1
    manifest: str
    recipe: str
    gate_report: str
    lock: str
    override: str | None = None

    def to_json(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


class Attestation(_Data):
    """A statement, the key of who makes it, and its signature, both in hexadecimal."""

    statement: Statement
    public_key: str
    signature: str

    @classmethod
    def of(cls, statement: Statement, key: Ed25519PrivateKey) -> Self:
        return cls(
            statement=statement,
            public_key=public_key(key),
            signature=key.sign(statement.to_json()).hex(),
        )

    @property
    def is_genuine(self) -> bool:
        """Whether the owner of `public_key` has signed just this statement."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key))
            key.verify(bytes.fromhex(self.signature), self.statement.to_json())
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))


def public_key(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key at `path`, readable by its owner only; made at the first call."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _made(path)
    key = load_pem_private_key(data, password=None)
    assert isinstance(key, Ed25519PrivateKey), f"{path} holds another kind of key"
    return key


def _made(path: Path) -> Ed25519PrivateKey:
    """Whole or not at all, and once: of two processes that make it the second takes the first's."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}-{os.getpid()}")
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(incoming, path)
    except FileExistsError:
        return signing_key(path)
    finally:
        incoming.unlink()
    return key
