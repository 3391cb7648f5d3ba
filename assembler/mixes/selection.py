"""Whether a request can be fulfilled, told from rows and manifests alone, all of it at once.

Nobody should have to mend one mistake to be told of the next.
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
from registry.checkpoints.manifests import Manifest
from registry.database.tables import DomainEmbedding, ExpertVersion, Family, Projection
from registry.errors import Conflict, InvalidInput, NexusmixError, NotFound, Problem
from registry.names import check_name, parse_ref


@dataclass(frozen=True, kw_only=True)
class Member:
    """An expert of a request, as it was found, and the pointer to where it is named; `embedding` is
    None when it has none of use."""

    pointer: str
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

    @property
    def experts(self) -> tuple[str, ...]:
        """Those that were found, pinned."""
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
    """Look up all that a request names. Never raises for what is wrong with it.

    `pointers` say where the request names each expert. Experts in `kept`, pinned, are in the mix
    already: one that was retired since may stay. Name and family are None where they would be those
    of a base that was not found.
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
            problems.append(Problem(at, f"{detail}: an expert has one version in a mix"))
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
    for problem in admission.differences(manifest, seed):
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
