"""Uploads in three steps: announce a checkpoint, send the missing blobs, complete it.

`begin_...` checks config, headers and digests, and returns the digests to send. `complete_...`
hands what was sent to a worker, which calls `check_...`. All can be repeated. `sender` is the id of
the API key that asks: bytes count as sent if it has sent them or may download them, see
`blob_permissions`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from registry import licenses
from registry.blobs.blobs import BlobStore
from registry.catalog import blob_permissions, documents, experts, families
from registry.catalog.documents import Document
from registry.checkpoints import admission, byte_checks, manifests
from registry.checkpoints.admission import CheckpointAnnouncement
from registry.database import db
from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from registry.errors import Conflict, InvalidInput, Problem
from registry.imports import sources
from registry.imports.sources import Source
from registry.names import check_name, is_digest


@dataclass(frozen=True)
class FamilyUpload:
    """An announced family, and the digests of its seed that must still be sent."""

    family: Family
    missing: list[str]


@dataclass(frozen=True)
class ExpertUpload:
    """An announced version of an expert, and the digests that must still be sent."""

    version: ExpertVersion
    missing: list[str]


def begin_family(
    session: Session,
    blobs: BlobStore,
    *,
    name: str,
    license: str,
    description: str,
    checkpoint: CheckpointAnnouncement,
    sender: int,
) -> FamilyUpload:
    """Announce the seed of a family.

    Announcing the same seed again returns the same family. Another seed, and another license,
    replace the first until an expert uses the family. Raises InvalidInput for name and license,
    InvalidCheckpoint for the checkpoint, and Conflict if the family is used.
    """
    check_name(name, at="/name")
    licenses.check(license, at="/license")
    manifest = admission.announce(checkpoint)
    permitted = blob_permissions.accept(session, blobs, manifest.digests(), sender=sender)
    missing = admission.missing(blobs, manifest, known=set(), permitted=permitted)
    seed_digest = manifests.store(blobs, manifest)
    session.execute(
        insert(Family)
        .values(name=name, license=license, description=description, seed_digest=seed_digest)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    family = families.lock(session, families.find(session, name).id)
    if family.seed_digest != seed_digest:
        families.replace_seed(session, family, seed_digest=seed_digest)
    if family.license != license:
        families.check_unused(session, family)
    family.license, family.description = license, description or family.description
    session.flush()
    return FamilyUpload(family, missing)


def complete_family(session: Session, blobs: BlobStore, *, name: str, sender: int) -> Family:
    """Have the seed of a family checked, now that its blobs were sent.

    A family that is ready or being checked is returned as it is, one that failed is checked again.
    Raises NotFound, and Conflict if blobs are missing or another seed was announced meanwhile.
    """
    family = families.find(session, name)
    if family.state in (VersionState.UPLOADING, VersionState.FAILED):
        sent = family.seed_digest
        db.release(session)
        manifest = manifests.load(blobs, sent)
        permitted = blob_permissions.accept(session, blobs, manifest.digests(), sender=sender)
        admission.check_sent(blobs, manifest, known=set(), permitted=permitted)
        family = families.lock(session, family.id)
        if family.seed_digest != sent:
            raise Conflict(f"another seed was announced for family {name!r} meanwhile")
        if family.state in (VersionState.UPLOADING, VersionState.FAILED):
            families.begin_checks(family)
            session.flush()
    return family


def check_family(blobs: BlobStore, family: Family) -> None:
    """Read and check all bytes of a seed, which takes seconds for each GB.

    Raises Conflict if blobs are missing, and InvalidCheckpoint.
    """
    byte_checks.verify(blobs, manifests.load(blobs, family.seed_digest), known=set())


def begin_expert_version(
    session: Session,
    blobs: BlobStore,
    *,
    expert: str,
    family: str,
    license: str,
    description: str,
    checkpoint: CheckpointAnnouncement,
    documents: str,
    sender: int,
) -> ExpertUpload:
    """Announce a version of an expert; `documents` is the digest of its sample documents.

    Announcing the same checkpoint and documents again returns the same version. The first version
    also adds the expert. Raises NotFound for the family, InvalidInput for name, license and
    documents, InvalidCheckpoint, Incompatible if the checkpoint does not fit the family, and
    Conflict if the expert belongs to another family, or the version was retired or is ready under
    another license.
    """
    check_announced(expert, license=license, documents=documents)
    parent = families.find_ready(session, family)
    db.release(session)
    seed = manifests.load(blobs, parent.seed_digest)
    manifest = admission.tied_as(seed, admission.announce(checkpoint))
    admission.check_fits(manifest, seed)
    wanted = (manifest.digests() - seed.digests()) | {documents}
    permitted = blob_permissions.accept(session, blobs, wanted, sender=sender)
    manifest_digest = manifests.store(blobs, manifest)
    version = find_or_add_version(
        session,
        ExpertVersion(
            license=license,
            description=description,
            manifest_digest=manifest_digest,
            documents_digest=documents,
        ),
        expert=expert,
        family=parent,
    )
    if version.state in (VersionState.EMBEDDING, VersionState.READY):
        # That tells everybody that its bytes are there. If one was lost, it is sent again.
        permitted = wanted
    missing = admission.missing(blobs, manifest, known=seed.digests(), permitted=permitted)
    missing += not_sent(blobs, [documents], permitted=permitted)
    return ExpertUpload(version, missing)


def complete_expert_version(
    session: Session, blobs: BlobStore, *, expert: str, number: int, sender: int
) -> ExpertVersion:
    """Have a version checked and embedded, now that its blobs were sent.

    A version that is ready or in work is returned as it is, one that failed is checked again.
    Raises NotFound, and Conflict if blobs are missing or the version was retired.
    """
    version = experts.find_version(session, expert=expert, number=number)
    if version.state in (VersionState.UPLOADING, VersionState.FAILED):
        db.release(session)
        if version.source is not None:
            _check_source_sent(session, blobs, version, version.source, sender=sender)
        else:
            _check_checkpoint_sent(session, blobs, version, sender=sender)
        session.refresh(version, ["state", "num_retries"], with_for_update=True)
        if version.state in (VersionState.UPLOADING, VersionState.FAILED):
            experts.begin_checks(version)
            session.flush()
    if version.state is VersionState.RETIRED:
        raise Conflict(f"{experts.ref_of(version)} was retired")
    return version


def _check_checkpoint_sent(
    session: Session, blobs: BlobStore, version: ExpertVersion, *, sender: int
) -> None:
    seed = manifests.load(blobs, version.expert.family.seed_digest)
    manifest = manifests.load(blobs, experts.checkpoint_digest(version))
    wanted = (manifest.digests() - seed.digests()) | {version.documents_digest}
    permitted = blob_permissions.accept(session, blobs, wanted, sender=sender)
    admission.check_sent(blobs, manifest, known=seed.digests(), permitted=permitted)
    _check_documents_sent(blobs, version.documents_digest, permitted=permitted)


def _check_source_sent(
    session: Session,
    blobs: BlobStore,
    version: ExpertVersion,
    source: dict[str, Any],
    *,
    sender: int,
) -> None:
    """Check what the version is imported from: a worker makes the checkpoint, nobody sends it."""
    wanted = Source.from_json(source).sent_by_owner()
    permitted = blob_permissions.accept(
        session, blobs, wanted | {version.documents_digest}, sender=sender
    )
    if absent := not_sent(blobs, wanted, permitted=permitted):
        raise Conflict(
            f"{len(absent)} blobs were not sent yet",
            problems=tuple(Problem("/missing", digest) for digest in absent),
        )
    _check_documents_sent(blobs, version.documents_digest, permitted=permitted)


def not_sent(blobs: BlobStore, digests: Iterable[str], *, permitted: set[str]) -> list[str]:
    """Return those of `digests` that must still be sent, sorted. The others are kept."""
    return [
        digest
        for digest in sorted(digests)
        if digest not in permitted or blobs.keep(digest) is None
    ]


def check_expert_version(blobs: BlobStore, version: ExpertVersion) -> list[Document]:
    """Read and check all bytes of a version that its seed does not have; return its documents.

    It takes seconds for each GB. Raises Conflict if blobs are missing, InvalidCheckpoint,
    Incompatible if the checkpoint does not fit the seed, and InvalidInput for the documents.
    """
    seed = manifests.load(blobs, version.expert.family.seed_digest)
    manifest = manifests.load(blobs, experts.checkpoint_digest(version))
    admission.check_fits(manifest, seed)
    byte_checks.verify(blobs, manifest, known=seed.digests())
    digest = version.documents_digest
    parsed = list(_read_documents(blobs, digest, permitted={digest}))
    documents.check_expert_documents(parsed)
    return parsed


def check_projection_documents(
    session: Session, blobs: BlobStore, digest: str, *, sender: int
) -> None:
    """Check the documents of a projection.

    Raises Conflict if they were not sent, and InvalidInput if a projection cannot learn from them.
    """
    permitted = blob_permissions.find_permitted(session, [digest], sender=sender)
    documents.group_by_domain(_read_documents(blobs, digest, permitted=permitted))


def _lock_expert(
    session: Session, name: str, family: Family, *, license: str, description: str
) -> Expert:
    """Return the expert, added if it is new; its row is locked while its version is numbered.

    A name of which every version failed may move to another family.
    """
    known = session.scalar(
        select(Expert).where(Expert.name == name).options(joinedload(Expert.family))
    )
    if known is not None and known.family_id != family.id:
        families.delete_failed_experts(session, known.family, name=name)
        session.expire_all()
    session.execute(
        insert(Expert)
        .values(name=name, family_id=family.id, license=license, description=description)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    session.execute(select(Expert.id).where(Expert.name == name).with_for_update())
    expert = experts.find(session, name)
    if expert.family_id != family.id:
        raise Conflict(f"expert {name!r} belongs to family {expert.family.name!r}")
    return expert


def check_announced(expert: str, *, license: str, documents: str) -> None:
    """Check name and license of an expert and the digest of its documents. Raises InvalidInput."""
    check_name(expert, at="/expert")
    licenses.check(license, at="/license")
    if not is_digest(documents):
        problem = Problem("/documents", "expected the SHA-256 of the documents")
        raise InvalidInput("the documents are not announced", problems=(problem,))


def find_or_add_version(
    session: Session, wanted: ExpertVersion, *, expert: str, family: Family
) -> ExpertVersion:
    """Return the version of an expert with the checkpoint or source and documents of `wanted`.

    If there is none, `wanted` is added as the newest version, and the expert if it is new. Raises
    Conflict if the version was retired or is ready under another license, and if the expert belongs
    to another family.
    """
    families.lock(session, family.id)
    license, description = wanted.license, wanted.description
    owner = _lock_expert(session, expert, family, license=license, description=description)
    for version in experts.find_versions(session, expert):
        if version.documents_digest == wanted.documents_digest and _is_same(version, wanted):
            _describe(session, version, license=license, description=description)
            return version
    last = session.scalar(
        select(func.max(ExpertVersion.number)).where(ExpertVersion.expert_id == owner.id)
    )
    wanted.expert, wanted.number = owner, (last or 0) + 1
    session.add(wanted)
    session.flush()
    return wanted


def _is_same(version: ExpertVersion, wanted: ExpertVersion) -> bool:
    if wanted.source is not None:
        return sources.is_same(version.source, wanted.source)
    return version.manifest_digest == wanted.manifest_digest


def _describe(session: Session, version: ExpertVersion, *, license: str, description: str) -> None:
    """Give a version that was announced before what it is announced with now."""
    if version.state is VersionState.RETIRED:
        raise Conflict(f"{experts.ref_of(version)} is this very checkpoint, and was retired")
    if version.license != license and version.ready_at is not None:
        raise Conflict(
            f"{experts.ref_of(version)} is this very checkpoint, under license"
            f" {version.license!r}: what is made of it relies on that license"
        )
    version.license, version.description = license, description or version.description
    session.flush()
    experts.show_newest(session, version.expert)


def _check_documents_sent(blobs: BlobStore, digest: str, *, permitted: set[str]) -> None:
    size = blobs.keep(digest) if digest in permitted else None
    if size is None:
        raise Conflict("the documents were not sent yet", problems=(Problem("/missing", digest),))
    if size > documents.MAX_BYTES:
        detail = f"{size} bytes, at most {documents.MAX_BYTES} are taken: send a sample"
        raise InvalidInput("too many documents", problems=(Problem("/documents", detail),))


def _read_documents(blobs: BlobStore, digest: str, *, permitted: set[str]) -> Iterator[Document]:
    _check_documents_sent(blobs, digest, permitted=permitted)
    return documents.parsed(blobs.read(digest))
