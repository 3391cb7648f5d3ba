"""A published mix with all that its rows name, in a store."""

from pathlib import Path

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixVersion
from registry.blobs.blobs import BlobStore
from tests.assembler import rows
from tests.assembler.published import publish


def add(session: Session, blobs: BlobStore, *, name: str = "both") -> MixVersion:
    """Add a family, two experts, a projection, and a published mix of both."""
    rows.add_all(session, blobs)
    version = mixes.request(
        session, blobs, NewMix(name=name, family="tiny", experts=["expert-1", "expert-2"])
    )
    return publish(session, blobs, version)


def damage(path: Path) -> None:
    """Flip a bit of a blob's file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
