"""A mix is published in two steps: its bytes are stored, then its row."""

from collections.abc import Iterable

import pytest
from sqlalchemy.orm import Session

from assembler.mixes import mixes, publishing
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixVersion
from registry.blobs.blobs import LocalBlobs, get_bytes
from registry.checkpoints.attestations import Attestation
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import assemble, keep_report


class Watched(LocalBlobs):
    """A store that cannot be written while a connection is in use."""

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        assert db.engine().pool.checkedout() == 0  # type: ignore[attr-defined]
        return super().put(chunks, digest=digest, overwrite=overwrite)


@pytest.fixture
def version(session: Session, blobs: LocalBlobs) -> MixVersion:
    rows.add_all(session, blobs)
    spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
    version = mixes.request(session, blobs, spec)
    assemble(session, blobs, version)
    keep_report(blobs, version, failures=())
    return version


def test_no_transaction_is_open_while_the_statement_is_stored(
    session: Session, blobs: LocalBlobs, version: MixVersion
) -> None:
    publication = publishing.prepare(session, version, blobs=Watched(blobs.root))
    attestation = Attestation.model_validate_json(get_bytes(blobs, publication.attestation_digest))
    assert attestation.is_genuine
    assert publication.statement.manifest == version.candidate_digest


def test_publishing_again_gives_the_same_artifact(
    session: Session, blobs: LocalBlobs, version: MixVersion
) -> None:
    ids = {
        publishing.register(session, version, publishing.prepare(session, version, blobs=blobs)).id
        for _ in range(2)
    }
    assert len(ids) == 1
