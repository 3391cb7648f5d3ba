"""Check a request against rows and manifests, and collect all problems at once.

A user sees every mistake in the first answer, not one after the other.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select as sql_select
from sqlalchemy.orm import Session, joinedload

from assembler.routing.embedder import EMBEDDER, SHORT, embedder_digest, embedders, outdated
from assembler.tables import Mix
from registry.blobs.blobs import BlobStore
from registry.catalog import embeddings, experts, families, projections
from registry.checkpoints import admission, manifests
from registry.checkpoints.file_names import TOKENIZER
from registry.checkpoints.manifests import Manifest
from registry.database.tables import DomainEmbedding, ExpertVersion, Family, Projection
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem
from registry.names import check_name, parse_ref


@dataclass(frozen=True, kw_only=True)
class Member:
    """An expert of a request that was found.

    `pointer` is the field of the request that names it. `embedding` is None if it has no current
    domain embedding.
    """

    pointer: str
    version: ExpertVersion
    manifest: Manifest
    embedding: DomainEmbedding | None

    @property
    def name(self) -> str:
        return self.version.expert.name


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What was found of the names in a request, and all problems."""

    family: Family | None
    seed: Manifest | None
    members: tuple[Member, ...]
    projection: Projection | None
    problems: tuple[Problem, ...]

    @property
    def experts(self) -> tuple[str, ...]:
        """Return the experts that were found, pinned."""
        return tuple(experts.ref_of(member.version) for member in self.members)


def select(
    session: Session,
    blobs: BlobStore,
    *,
    name: str | None,
    family: str | None,
    experts: Sequence[str],
    pointers: Sequence[str],
    needs_projection: bool,
    kept: Collection[str] = (),
) -> Selection:
    """Look up all that a request names. Problems of the request are returned, never raised.

    `pointers` gives the field of the request that names each expert. The pinned experts in `kept`
    are in the mix already and may have been retired since. `name` and `family` are None if they
    come from a base that was not found.
    """
    problems = [] if name is None else list(_name_problems(session, name, family))
    owner, projection = None, None
    try:
        if family is not None:
            owner = families.find_ready(session, family)
            if needs_projection:
                projection = projections.pin(session, family)
                if detail := outdated(projection):
                    problems.append(Problem("/family", f"{detail}; ask for a new projection"))
    except (NotFound, Conflict) as error:
        problems.append(Problem("/family", error.detail))
    seed = None if owner is None else manifests.load(blobs, owner.seed_digest)
    named = list(zip(experts, pointers, strict=True))
    members, member_problems = _members(session, blobs, named, kept=kept, owner=owner, seed=seed)
    return Selection(
        family=owner,
        seed=seed,
        members=tuple(members),
        projection=projection,
        problems=(*problems, *member_problems),
    )


def _name_problems(session: Session, name: str, family: str | None) -> Iterator[Problem]:
    try:
        check_name(name, at="/name")
    except InvalidInput as error:
        yield from error.problems
    query = sql_select(Mix).where(Mix.name == name).options(joinedload(Mix.family))
    mix = session.scalar(query)
    if mix is not None and family is not None and mix.family.name != family:
        yield Problem("/name", f"mix {name!r} exists already in family {mix.family.name!r}")


def _members(
    session: Session,
    blobs: BlobStore,
    named: Sequence[tuple[str, str]],
    *,
    kept: Collection[str],
    owner: Family | None,
    seed: Manifest | None,
) -> tuple[list[Member], list[Problem]]:
    members: list[Member] = []
    problems: list[Problem] = []
    for ref, at in named:
        try:
            version = _pin(session, ref, is_kept=ref in kept)
        except NexusmixError as error:
            problems.append(Problem(at, error.detail))
            continue
        same = next((m for m in members if m.version.expert_id == version.expert_id), None)
        if same is not None:
            detail = f"{experts.ref_of(same.version)} is in the mix already, by {same.pointer}"
            problems.append(Problem(at, f"{detail}: a mix has one version of an expert"))
            continue
        manifest = manifests.load(blobs, experts.checkpoint_digest(version))
        embedded = embeddings.find_all(session, version)
        problems += [Problem(at, detail) for detail in _embedding_problems(version, embedded)]
        if owner is not None and seed is not None:
            problems += [
                Problem(at, detail)
                for detail in _family_problems(version, manifest, owner=owner, seed=seed)
            ]
        usable = (row for row in embedded if _is_current(row, version))
        members.append(
            Member(pointer=at, version=version, manifest=manifest, embedding=next(usable, None))
        )
    return members, problems


def _pin(session: Session, ref: str, *, is_kept: bool) -> ExpertVersion:
    name, number = parse_ref(ref)
    if is_kept and number is not None:
        return experts.find_version(session, expert=name, number=number)
    return experts.pin(session, ref)


def _embedding_problems(
    version: ExpertVersion, embedded: Sequence[DomainEmbedding]
) -> Iterator[str]:
    name = version.expert.name
    if any(_is_current(row, version) for row in embedded):
        return
    newest = next(iter(embedded), None)
    if version.kept_documents is None:
        yield (
            f"the domain of {name!r} is embedded by another embedder than {_ours()}, and its"
            " documents are forgotten: register it again with documents"
        )
    elif newest is None or newest.embedder_digest == embedder_digest():
        # Or its router inputs are missing or outdated.
        yield (
            f"the domain of {name!r} is not embedded by {_ours()} yet; a running worker does it,"
            f" and {experts.ref_of(version)} says when it failed"
        )
    else:
        yield (
            f"the domain of {name!r} is embedded by {newest.embedder!r} "
            f"({newest.embedder_digest[:SHORT]}), not by {_ours()}: vectors of different "
            "embedders cannot be compared"
        )


def _family_problems(
    version: ExpertVersion, manifest: Manifest, *, owner: Family, seed: Manifest
) -> Iterator[str]:
    """Report an expert of another family, and whether it could be registered in this one.

    Experts of this family were compared with the seed at their registration.
    """
    name, other = version.expert.name, version.expert.family
    if other.id == owner.id:
        return
    yield f"{name!r} is of family {other.name!r}, not {owner.name!r}"
    fits = True
    for problem in admission.differences(manifest, seed):
        fits = False
        where = "" if problem.pointer.startswith("/tensors") else f"{problem.pointer[1:]} "
        yield f"{name!r}: {where}{problem.detail}"
    if fits:
        # Tokenizers are compared by meaning, at registration only: that reads their bytes.
        is_same = manifest.files.get(TOKENIZER) == seed.files.get(TOKENIZER)
        yield (
            f"{name!r} has the tensors of {owner.name!r} and "
            f"{'its tokenizer' if is_same else f'another {TOKENIZER}'}: "
            "if it branched from that seed, register it in that family too, under another name"
        )


def _is_current(row: DomainEmbedding, version: ExpertVersion) -> bool:
    """Tell whether an embedding was made by the embedders that this family uses today."""
    return embeddings.is_made_by(row, embedders(version.expert.family.seed_digest))


def _ours() -> str:
    return f"{EMBEDDER!r} ({embedder_digest()[:SHORT]})"
