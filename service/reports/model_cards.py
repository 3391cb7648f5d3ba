"""What an application may know about a served model: its context, experts, license and state."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from assembler.tables import Mix, MixVersion
from engine.serving.tables import Deployment
from registry import licenses
from registry.database.tables import Artifact, Expert, ExpertVersion, Family
from registry.names import parse_ref

# A recipe as the database has it, and a member of it: name and version.
Recipe = Mapping[str, Any]
Member = tuple[str, int]


def cards(session: Session, rows: Mapping[str, Deployment]) -> list[dict[str, Any]]:
    """Return the entries of OpenAI's list of models, for deployments by the names they answer to.

    Our own fields stand beside OpenAI's. An artifact without a recipe has no experts here, and a
    license is given only when those of all experts and of the seed are known.
    """
    recipes = _recipes(session, rows.values())
    members = {row_id: _members(recipe) for row_id, recipe in recipes.items()}
    known = _licenses(session, {member for each in members.values() for member in each})
    seeds = _seed_licenses(session, {str(recipe.get("family")) for recipe in recipes.values()})
    listed = []
    for name, row in rows.items():
        own = members.get(row.id, [])
        seed = seeds.get(str(recipes.get(row.id, {}).get("family")))
        owners = [seed, *(known.get(member) for member in own)]
        texts = tuple(text for text in owners if text is not None)
        is_known = bool(own) and len(texts) == len(owners)
        about = {
            "deployment": row.id,
            "artifact": row.artifact_id,
            "preview": row.is_preview,
            "state": row.state,
            "experts": [{"name": name, "version": version} for name, version in own],
            "license": _combined(texts) if is_known else None,
        }
        listed.append(
            {
                "id": name,
                "object": "model",
                "created": int(row.created_at.timestamp()),
                "owned_by": "nexusmix",
                # The name that vLLM's own list has for it.
                "max_model_len": row.context,
                "nexusmix": about,
            }
        )
    return listed


def _recipes(session: Session, rows: Collection[Deployment]) -> dict[int, Recipe]:
    """Return the recipes of deployments by their ids: of releases, and of previews."""
    releases = {row.id: row.artifact_id for row in rows if row.artifact_id is not None}
    query = select(Artifact.id, Artifact.recipe).where(Artifact.id.in_(set(releases.values())))
    by_artifact: dict[int, Recipe] = {number: recipe for number, recipe in session.execute(query)}
    found = {row_id: by_artifact[number] for row_id, number in releases.items()}
    previews = {
        parse_ref(row.ref): row.id
        for row in rows
        if row.artifact_id is None and row.ref is not None
    }
    versions = (
        select(Mix.name, MixVersion.number, MixVersion.recipe)
        .join(MixVersion.mix)
        .where(tuple_(Mix.name, MixVersion.number).in_(list(previews)))
    )
    for name, number, recipe in session.execute(versions) if previews else ():
        found[previews[name, number]] = recipe
    return found


def _members(recipe: Recipe) -> list[Member]:
    """Return the experts of a recipe in its order."""
    refs = map(parse_ref, recipe.get("experts", ()))
    return [(name, number) for name, number in refs if number is not None]


def _licenses(session: Session, members: set[Member]) -> dict[Member, str]:
    """Return the licenses of versions of experts."""
    if not members:
        return {}
    query = (
        select(Expert.name, ExpertVersion.number, ExpertVersion.license)
        .join(Expert, Expert.id == ExpertVersion.expert_id)
        .where(tuple_(Expert.name, ExpertVersion.number).in_(list(members)))
    )
    return {(name, number): license for name, number, license in session.execute(query)}


def _seed_licenses(session: Session, families: set[str]) -> dict[str, str]:
    """Return the licenses of the seeds of families, by name."""
    query = select(Family.name, Family.license).where(Family.name.in_(families))
    return {name: license for name, license in session.execute(query)}


@lru_cache(maxsize=1000)
def _combined(texts: tuple[str, ...]) -> str:
    """Return the license of a work made from works under `texts`."""
    return licenses.combine(texts)
