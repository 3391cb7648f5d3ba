"""Experts as the pages show them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy.orm import Session

from registry.blobs import blob_stores
from registry.catalog import experts, unready
from registry.checkpoints import manifests, notes
from registry.database import db
from registry.database.tables import Expert, ExpertVersion, VersionState

# Entries of a cache: two numbers and the notes for each version that was shown.
MAX_SIZES = 4096


@dataclass(frozen=True, kw_only=True)
class VersionView:
    """One version; `num_own_bytes` are the bytes of the tensors that its seed does not have.

    Both sizes are 0 until it is imported.
    """

    number: int
    state: VersionState
    error: str | None
    num_checks: int
    can_retry: bool
    license: str
    notes: tuple[str, ...]
    num_bytes: int
    num_own_bytes: int
    manifest_digest: str | None
    documents: str
    created_at: datetime
    kept_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class ExpertView:
    """An expert; `versions` are newest first. In a list of experts there is only the newest."""

    name: str
    family: str
    license: str
    description: str
    created_at: datetime
    versions: tuple[VersionView, ...]

    @property
    def newest(self) -> VersionView | None:
        return self.versions[0] if self.versions else None


def view(session: Session, expert: Expert) -> ExpertView:
    """Return an expert with all its versions."""
    versions = experts.find_versions(session, expert.name)
    db.release(session)  # manifests are read next
    return _expert(expert, _versions(versions))


def views(session: Session, rows: Sequence[Expert]) -> list[ExpertView]:
    """Return experts with their newest versions, in one query for any number of experts."""
    newest = experts.find_newest(session, [expert.name for expert in rows])
    db.release(session)
    by_expert = {
        row.expert_id: version for row, version in zip(newest, _versions(newest), strict=True)
    }
    return [_expert(row, [by_expert[row.id]] if row.id in by_expert else []) for row in rows]


def _expert(expert: Expert, versions: Sequence[VersionView]) -> ExpertView:
    return ExpertView(
        name=expert.name,
        family=expert.family.name,
        license=expert.license,
        description=expert.description,
        created_at=expert.created_at,
        versions=tuple(versions),
    )


def _versions(rows: Sequence[ExpertVersion]) -> list[VersionView]:
    return [_version(row) for row in rows]


def _documents(row: ExpertVersion) -> str:
    if row.documents_forgotten_at is not None:
        return "forgotten"
    if row.forget_documents:
        return "private, forgotten once embedded"
    return "private" if row.private_documents else "shared"


def _version(row: ExpertVersion) -> VersionView:
    num_bytes, num_own_bytes, sentences = 0, 0, tuple[str, ...]()
    if row.manifest_digest is not None:
        num_bytes, num_own_bytes, sentences = _facts(
            row.manifest_digest, row.expert.family.seed_digest
        )
    source = () if row.imported_from is None else (row.imported_from,)
    return VersionView(
        number=row.number,
        state=row.state,
        error=row.error or row.progress,
        num_checks=row.num_retries + 1,
        can_retry=experts.can_retry(row),
        license=row.license,
        notes=source + sentences,
        num_bytes=num_bytes,
        num_own_bytes=num_own_bytes,
        manifest_digest=row.manifest_digest,
        documents=_documents(row),
        created_at=row.created_at,
        kept_until=unready.until(row),
    )


@lru_cache(MAX_SIZES)
def _facts(manifest_digest: str, seed_digest: str) -> tuple[int, int, tuple[str, ...]]:
    """Return the bytes of a checkpoint's tensors, of those that its seed does not have, and notes.

    A digest always stands for the same manifest, so the result can be cached.
    """
    blobs = blob_stores.store()
    manifest, seed = (manifests.load(blobs, digest) for digest in (manifest_digest, seed_digest))
    shared = seed.digests()
    unshared = [t.num_bytes for t in manifest.tensors.values() if t.digest not in shared]
    return manifest.num_bytes, sum(unshared), tuple(notes.sentences(manifest))
