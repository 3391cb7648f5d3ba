"""Finds the blobs that rows need: those that rows name, and those that these name in turn.

A manifest names tensors and files. The provenance of an artifact names what it was made of.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from sqlalchemy import select
from sqlalchemy.orm import Session

from assembler.tables import Mix, MixVersion
from engine.serving.tables import LIVE_STATES, Deployment
from registry.blobs.blobs import StoreUpkeep
from registry.catalog import unready
from registry.checkpoints.manifests import Manifest
from registry.database import db
from registry.database.tables import (
    UNCHECKED_STATES,
    Artifact,
    DomainEmbedding,
    Expert,
    ExpertVersion,
    Family,
    Projection,
)
from registry.errors import NotFound
from registry.imports.sources import Source
from registry.names import is_digest

# A blob of many owners names some of them.
MAX_NEEDED_BY = 5

# What a provenance names, by the names of its fields. Of its results only the manifests are needed.
PROVENANCE_MANIFESTS = ("seed", "experts", "projection", "base", "base_experts")
PROVENANCE_BYTES = (
    "documents",
    "vectors",
    "states",
    "moments",
    "base_moments",
    "assembled",
    "finetuned",
    "compressed",
)


class Kind(Enum):
    """What the bytes of a blob are, as far as they name other blobs."""

    MANIFEST = "manifest"
    PROVENANCE = "provenance"
    BYTES = "bytes"
    # Documents that their owner has had deleted. A provenance that names them does not keep them.
    FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Root:
    """A blob that a row names."""

    owner: str
    part: str
    digest: str
    kind: Kind
    # An upload that goes on has not sent all of its blobs.
    is_sent: bool = True


@dataclass
class NeededBlobs:
    """Needed digests, each with some of what needs it; and what could not be read meanwhile.

    `required` are those that must be there; the others are of uploads that go on. `unread` are
    manifests and provenances that are missing or damaged. While there are any, it is not known what
    else is needed.
    """

    needed_by: dict[str, list[str]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def add(
        self, digest: str, reason: str, *, is_sent: bool = True, num_bytes: int | None = None
    ) -> None:
        reasons = self.needed_by.setdefault(digest, [])
        if is_sent:
            self.required.add(digest)
        if len(reasons) < MAX_NEEDED_BY:
            reasons.append(reason)
        if num_bytes is not None:
            self.sizes[digest] = num_bytes


def find(session: Session, blobs: StoreUpkeep) -> NeededBlobs:
    """Return all blobs that the rows need. Raises Unavailable if the store does not answer.

    It ends the transaction, so that none is open while manifests are read.
    """
    named = list(roots(session))
    db.release(session)
    return follow(named, blobs)


def follow(named: Iterable[Root], blobs: StoreUpkeep) -> NeededBlobs:
    """Return the blobs that are named and those that these name in turn. Raises Unavailable."""
    needed = NeededBlobs()
    named = list(named)
    kept = {root.digest for root in named if root.kind is Kind.BYTES}
    forgotten = {root.digest for root in named if root.kind is Kind.FORGOTTEN} - kept
    named = [root for root in named if root.kind is not Kind.FORGOTTEN]
    read: set[str] = set()
    # A manifest is followed once, so those of uploads that go on come last.
    for root in sorted(named, key=lambda root: not root.is_sent):
        needed.add(root.digest, f"{root.owner}: {root.part}", is_sent=root.is_sent)
        if root.kind is not Kind.BYTES:
            _follow(root, blobs, needed, read, forgotten=forgotten)
    return needed


def roots(session: Session) -> Iterator[Root]:
    """Yield every blob that a row names."""
    yield from _of_families(session)
    yield from _of_experts(session)
    yield from _of_mixes(session)
    yield from _of_artifacts(session)
    yield from _of_deployments(session)


def _of_families(session: Session) -> Iterator[Root]:
    for family in session.scalars(select(Family)):
        is_sent = family.state not in UNCHECKED_STATES
        if is_sent or not unready.is_over(family):
            owner = f"family {family.name}"
            yield Root(owner, "manifest", family.seed_digest, Kind.MANIFEST, is_sent)
    query = select(Projection, Family.name).join(Projection.family)
    for projection, name in session.execute(query):
        owner = f"projection {name}@{projection.number}"
        yield Root(owner, "documents", projection.documents_digest, Kind.BYTES)
        yield from _named(owner, Kind.MANIFEST, manifest=projection.manifest_digest)


def _of_experts(session: Session) -> Iterator[Root]:
    query = select(ExpertVersion, Expert.name).join(ExpertVersion.expert)
    for version, name in session.execute(query):
        # What was ready once can be in mixes, also if it cannot be embedded again.
        is_sent = version.state not in UNCHECKED_STATES or version.ready_at is not None
        if unready.is_over(version):
            continue
        owner = f"expert {name}@{version.number}"
        if version.manifest_digest is not None:
            yield Root(owner, "manifest", version.manifest_digest, Kind.MANIFEST, is_sent)
        if version.source is not None:
            source = Source.from_json(version.source)
            needed = source.digests() if version.manifest_digest is None else source.kept().values()
            yield from (Root(owner, "source", each, Kind.BYTES, is_sent) for each in needed)
        if version.kept_documents is None:
            yield Root(owner, "documents", version.documents_digest, Kind.FORGOTTEN)
        else:
            yield Root(owner, "documents", version.kept_documents, Kind.BYTES, is_sent)
    embeddings = (
        select(DomainEmbedding, Expert.name, ExpertVersion.number)
        .join(ExpertVersion, DomainEmbedding.expert_version_id == ExpertVersion.id)
        .join(ExpertVersion.expert)
    )
    for embedded, name, number in session.execute(embeddings):
        yield from _named(
            f"expert {name}@{number}",
            Kind.BYTES,
            router_inputs=embedded.states_digest,
            input_moments=embedded.moments_digest,
        )


def _of_artifacts(session: Session) -> Iterator[Root]:
    for artifact in session.scalars(select(Artifact)):
        owner = f"artifact {artifact.id}"
        yield Root(owner, "manifest", artifact.manifest_digest, Kind.MANIFEST)
        yield Root(owner, "gate report", artifact.gate_report_digest, Kind.BYTES)
        yield from _named(owner, Kind.PROVENANCE, provenance=artifact.provenance_digest)
        yield from _named(owner, Kind.BYTES, attestation=artifact.attestation_digest)


def _of_deployments(session: Session) -> Iterator[Root]:
    """Yield what runs. A preview goes on for a while after its mix has lost its results."""
    live = select(Deployment).where(Deployment.state.in_(LIVE_STATES))
    for deployment in session.scalars(live):
        yield Root(
            f"deployment {deployment.id}", "manifest", deployment.manifest_digest, Kind.MANIFEST
        )


def _of_mixes(session: Session) -> Iterator[Root]:
    for version, name in session.execute(select(MixVersion, Mix.name).join(MixVersion.mix)):
        owner = f"mix {name}@{version.number}"
        yield from _named(
            owner,
            Kind.MANIFEST,
            assembled_manifest=version.assembled_digest,
            finetuned_manifest=version.finetuned_digest,
            compressed_manifest=version.compressed_digest,
        )
        yield from _named(
            owner,
            Kind.BYTES,
            curve=version.curve_digest,
            gate_report=version.gate_report_digest,
            override=version.override_digest,
        )


def _named(owner: str, kind: Kind, **digests: str | None) -> Iterator[Root]:
    for part, digest in digests.items():
        if digest is not None:
            yield Root(owner, part.replace("_", " "), digest, kind)


def _follow(
    root: Root,
    blobs: StoreUpkeep,
    needed: NeededBlobs,
    read: set[str],
    *,
    forgotten: Collection[str],
) -> None:
    """Add what a manifest or a provenance names, once, but nothing that was forgotten."""
    if root.digest in read:
        return
    read.add(root.digest)
    data = _undamaged(root.digest, blobs)
    if data is None:
        needed.unread.append(root.digest)
    elif root.kind is Kind.PROVENANCE:
        for named in _of_provenance(root, json.loads(data)):
            if named.digest in forgotten:
                continue
            needed.add(named.digest, f"{named.owner}: {named.part}")
            if named.kind is Kind.MANIFEST:
                _follow(named, blobs, needed, read, forgotten=forgotten)
    else:
        manifest = Manifest.from_json(data)
        for name, entry in (*manifest.tensors.items(), *manifest.notes.rows.items()):
            reason = f"{root.owner}: tensor {name}"
            needed.add(entry.digest, reason, is_sent=root.is_sent, num_bytes=entry.num_stored_bytes)
        for name, digest in (*manifest.files.items(), *manifest.notes.files.items()):
            needed.add(digest, f"{root.owner}: file {name}", is_sent=root.is_sent)


def _of_provenance(root: Root, content: dict[str, object]) -> Iterator[Root]:
    for names, kind in (
        (PROVENANCE_MANIFESTS, Kind.MANIFEST),
        (PROVENANCE_BYTES, Kind.BYTES),
    ):
        for name in names:
            for digest in _digests(content.get(name)):
                yield Root(root.owner, f"provenance, {name.replace('_', ' ')}", digest, kind)


def _digests(value: object) -> Iterator[str]:
    """Yield the digests in a field of a provenance: a text, or lists of texts."""
    if isinstance(value, str):
        if is_digest(value):
            yield value
    elif isinstance(value, Iterable):
        for part in value:
            yield from _digests(part)


def _undamaged(digest: str, blobs: StoreUpkeep) -> bytes | None:
    """Return the bytes of a manifest or a provenance; None if they are missing or damaged."""
    try:
        data = b"".join(blobs.read_stored(digest))
    except NotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == digest else None
