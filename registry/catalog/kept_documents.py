"""What becomes of the documents of a version: shared, private to their owner, or forgotten.

No report quotes private documents, and no projection learns from them. Forgotten ones are deleted.
The domain embedding stays: its vector and its router inputs are all that an assembly reads.
"""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from registry.catalog import experts
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Conflict


def wish(session: Session, version: ExpertVersion, *, private: bool, forget: bool) -> None:
    """Store what an owner wishes for the documents of a version.

    A wish is not taken back by an announcement without it. What is ready is forgotten by `forget`,
    anything else as soon as it is embedded.
    """
    version.private_documents = version.private_documents or private or forget
    version.forget_documents = version.forget_documents or forget
    session.flush()


def forget(session: Session, version_id: int) -> ExpertVersion:
    """Mark the documents of a version as forgotten; house-keeping then deletes them.

    What is forgotten already stays as it is. Raises NotFound, and Conflict for a version whose
    domain is not embedded, which needs them.
    """
    version = experts.get_version(session, version_id)
    session.refresh(version, ["state", "documents_forgotten_at"], with_for_update=True)
    if version.documents_forgotten_at is not None:
        return version
    if version.state not in (VersionState.READY, VersionState.RETIRED):
        raise Conflict(
            f"{experts.ref_of(version)} is {version.state}: its documents are needed until its"
            " domain is embedded"
        )
    version.private_documents = version.forget_documents = True
    version.documents_forgotten_at = datetime.now(UTC)
    session.flush()
    return version
