"""Served models as the playground shows them: which experts may speak, and under which license."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.recipes.mix_architecture import SEED
from assembler.recipes.recipe import Recipe
from engine.serving import model_routes, sleeping
from engine.serving.tables import Deployment
from engine.vllm_plugin.attribution.experts import SHARED
from registry.catalog import artifacts, experts, families
from registry.errors import NotFound
from registry.names import parse_ref


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Who may compute a token: an expert of the mix, or its seed.

    `name` is the one that the field `nexus` has. `version` is None for the seed, and `license` is
    None for an expert that is no longer registered.
    """

    name: str
    version: int | None = None
    license: str | None
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """A served model. One that is asleep answers when its engine has started.

    `experts` can be switched off; there are none in a model that is one network. `shared` is the
    part that every token passes, if the mix has one. With `is_convex` it has the weight that the
    experts leave, otherwise always 1.
    """

    name: str
    mix: str | None
    is_preview: bool
    is_asleep: bool
    experts: tuple[Speaker, ...]
    shared: Speaker | None
    is_convex: bool


def views(session: Session) -> list[ModelView]:
    """Return the models that answer, by name."""
    return [_view(session, name, row) for name, row in model_routes.available(session).items()]


def _view(session: Session, name: str, row: Deployment) -> ModelView:
    recipe = _recipe(session, row)
    is_mixture = recipe.kind == "mixture"
    speakers = [_expert(session, ref) for ref in recipe.experts] if is_mixture else []
    shared = None
    if is_mixture and recipe.shared_expert:
        shared = _seed(session, recipe, name=SHARED)
    elif is_mixture:
        speakers.append(_seed(session, recipe, name=SEED))
    return ModelView(
        name=name,
        mix=row.ref,
        is_preview=row.is_preview,
        is_asleep=sleeping.is_asleep(row),
        experts=tuple(speakers),
        shared=shared,
        is_convex=recipe.combine == "convex",
    )


def _recipe(session: Session, row: Deployment) -> Recipe:
    if row.artifact_id is not None:
        return Recipe.model_validate(artifacts.get(session, row.artifact_id).recipe)
    assert row.ref is not None, "a preview has the name of its mix"
    return Recipe.model_validate(mixes.get(session, row.ref).recipe)


def _expert(session: Session, ref: str) -> Speaker:
    name, number = parse_ref(ref)
    assert number is not None, "a recipe pins every version"
    try:
        found = experts.find_version(session, expert=name, number=number)
    except NotFound:
        return Speaker(name=name, version=number, license=None)
    about = found.description or found.expert.description
    return Speaker(name=name, version=number, license=found.license, about=about)


def _seed(session: Session, recipe: Recipe, *, name: str) -> Speaker:
    family = families.find(session, recipe.family)
    return Speaker(name=name, license=family.license, about=f"the seed of {family.name}")
