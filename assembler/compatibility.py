"""Whether a request can be fulfilled, told from rows and manifests alone, all of it at once.

Nobody should have to mend one mistake to be told of the next.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select as sql_select
from sqlalchemy.orm import Session, joinedload

from assembler.embedder import EMBEDDER, embedder_digest, embedders
from assembler.pinning import MIN_EXPERTS, SHORT, outdated
from assembler.tables import Mix
from registry import checkpoints, embeddings, experts, families, manifests, projections
from registry.blobs import BlobStore
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem, pointer
from registry.manifests import Manifest
from registry.names import check_name, parse_ref
from registry.tables import DomainEmbedding, ExpertVersion, Family, Projection


@dataclass(frozen=True, kw_only=True)
class Member:
    """An expert of a request, as it was found; `embedding` is None when it has none of use."""

    version: ExpertVersion
    manifest: Manifest
    embedding: DomainEmbedding | None

    @property
    def name(self) -> str:
        return self.version.expert.name


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a request names, as far as it was found, and all that is wrong with it."""

    family: Family | None
    seed: Manifest | None
    members: tuple[Member, ...]
    projection: Projection | None
    problems: tuple[Problem, ...]


def select(
    session: Session,
    blobs: BlobStore,
    *,
    name: str,
    family: str,
    experts: Sequence[str],
    needs_projection: bool,
    kept: Collection[str] = (),
) -> Selection:
    """Look up all that a request names. Never raises for what is wrong with it.

    Experts in `kept`, pinned, are in the mix already: one that was retired since may stay.
    """
    problems = list(_name_problems(session, name, family))
    owner, projection = None, None
    try:
        owner = families.find_ready(session, family)
        if needs_projection:
            projection = projections.pin(session, family)
            if detail := outdated(projection):
                problems.append(Problem("/family", f"{detail}; ask for a new projection"))
    except (NotFound, Conflict) as error:
        hint = "; ask for one first" if owner else ""
        problems.append(Problem("/family", error.detail + hint))
    seed = None if owner is None else manifests.load(blobs, owner.seed_digest)
    members, member_problems = _members(session, blobs, experts, kept=kept, owner=owner, seed=seed)
    return Selection(
        family=owner,
        seed=seed,
        members=tuple(members),
        projection=projection,
        problems=(*problems, *member_problems),
    )


def _name_problems(session: Session, name: str, family: str) -> Iterator[Problem]:
    try:
        check_name(name, at="/name")
    except InvalidInput as error:
        yield from error.problems
    query = sql_select(Mix).where(Mix.name == name).options(joinedload(Mix.family))
    mix = session.scalar(query)
    if mix is not None and mix.family.name != family:
        yield Problem("/name", f"mix {name!r} exists already in family {mix.family.name!r}")


def _members(
    session: Session,
    blobs: BlobStore,
    refs: Sequence[str],
    *,
    kept: Collection[str],
    owner: Family | None,
    seed: Manifest | None,
) -> tuple[list[Member], list[Problem]]:
    members: list[Member] = []
    problems: list[Problem] = []
    if len(refs) < MIN_EXPERTS:
        detail = f"needs at least {MIN_EXPERTS} experts, got {len(refs)}"
        problems.append(Problem("/experts", detail))
    first: dict[int, int] = {}
    for position, ref in enumerate(refs):
        at = pointer("experts", position)
        try:
            version = _pin(session, ref, is_kept=ref in kept)
        except NexusmixError as error:
            problems.append(Problem(at, error.detail))
            continue
        if (same := first.setdefault(version.expert_id, position)) != position:
            detail = f"{version.expert.name!r} stands at {pointer('experts', same)} already"
            problems.append(Problem(at, detail))
            continue
        manifest = manifests.load(blobs, version.manifest_digest)
        embedded = embeddings.find_all(session, version)
        problems += [Problem(at, detail) for detail in _embedding_problems(version, embedded)]
        if owner is not None and seed is not None:
            problems += [
                Problem(at, detail)
                for detail in _family_problems(version, manifest, owner=owner, seed=seed)
            ]
        usable = (row for row in embedded if _is_current(row, version))
        members.append(Member(version=version, manifest=manifest, embedding=next(usable, None)))
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
    if newest is None or newest.embedder_digest == embedder_digest():
        # Or its router inputs are not taken yet, as they are today.
        yield f"the domain of {name!r} is not embedded yet, try again in a moment"
    else:
        yield (
            f"the domain of {name!r} is embedded by {newest.embedder!r} "
            f"({newest.embedder_digest[:SHORT]}), not by {_ours()}: vectors of different "
            "embedders cannot be compared"
        )


def _family_problems(
    version: ExpertVersion, manifest: Manifest, *, owner: Family, seed: Manifest
) -> Iterator[str]:
    """An expert of the family was compared with its seed when it was registered; one of another
    family is now, so that it can be seen whether it might have been registered in this one."""
    name, other = version.expert.name, version.expert.family
    if other.id == owner.id:
        return
    yield f"{name!r} is of family {other.name!r}, not {owner.name!r}"
    fits = True
    for problem in checkpoints.differences(manifest, seed):
        fits = False
        where = "" if problem.pointer.startswith("/tensors") else f"{problem.pointer[1:]} "
        yield f"{name!r}: {where}{problem.detail}"
    if fits:
        yield (
            f"{name!r} has the tensors and the tokenizer of {owner.name!r}: "
            "if it branched from that seed, register it in that family too, under another name"
        )


def _is_current(row: DomainEmbedding, version: ExpertVersion) -> bool:
    """Whether it is what mixes of the version's family are made from today."""
    current = embedders(version.expert.family.seed_digest)
    return (row.embedder_digest, row.states_embedder_digest) == (current.encoder, current.states)


def _ours() -> str:
    return f"{EMBEDDER!r} ({embedder_digest()[:SHORT]})"
