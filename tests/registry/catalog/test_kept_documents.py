"""Documents are shared, private or forgotten."""

import pytest
from sqlalchemy.orm import Session

from registry.blobs.blobs import BlobStore
from registry.catalog import kept_documents
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Conflict
from tests import factories


@pytest.fixture
def version(session: Session, blobs: BlobStore) -> ExpertVersion:
    family = factories.make_family(session, blobs)
    return factories.make_version(
        session, factories.make_expert(session, family, name="law"), blobs
    )


def test_a_wish_is_kept_until_another_wish_asks_for_more(
    session: Session, version: ExpertVersion
) -> None:
    assert (version.private_documents, version.kept_documents) == (False, version.documents_digest)
    kept_documents.wish(session, version, private=True, forget=False)
    kept_documents.wish(session, version, private=False, forget=False)
    assert (version.private_documents, version.forget_documents) == (True, False)
    kept_documents.wish(session, version, private=False, forget=True)
    assert version.forget_documents
    assert version.kept_documents == version.documents_digest


def test_what_is_embedded_can_be_forgotten_once(session: Session, version: ExpertVersion) -> None:
    forgotten = kept_documents.forget(session, version.id)
    assert (forgotten.kept_documents, forgotten.private_documents) == (None, True)
    at = forgotten.documents_forgotten_at
    assert kept_documents.forget(session, version.id).documents_forgotten_at == at


def test_documents_are_needed_until_the_domain_is_embedded(
    session: Session, version: ExpertVersion
) -> None:
    version.state = VersionState.EMBEDDING
    session.flush()
    with pytest.raises(Conflict, match="law@1 is embedding: its documents are needed until"):
        kept_documents.forget(session, version.id)
