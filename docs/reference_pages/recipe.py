"""The page of recipe, finetune, compression and policy fields, generated from their models."""

from pydantic import BaseModel

from assembler.recipes import presets
from assembler.recipes.recipe import Finetune, ProjectionTraining, Recipe
from engine.compression.int8_curve import Compression
from engine.gates.policy import Policy
from reference_pages import json_schema, markdown

INTRODUCTION = """\
A recipe says which experts become one mix, how, and what the mix must reach. A preset fills in
most fields. A request changes single ones: `--set FIELD=VALUE` on the command line, the field's
name in the body of the REST API. `finetune.FIELD`, `compress.FIELD` and `gates.STAGE.FIELD` name
fields of the parts below."""

# Titles of the sections, and how a request writes the fields of each.
PARTS: dict[str, tuple[type[BaseModel], str]] = {
    "Recipe": (Recipe, "FIELD"),
    "Finetune": (Finetune, "finetune.FIELD"),
    "Compression": (Compression, "compress.FIELD"),
    "Policy": (Policy, "gates.FIELD"),
    "Projection": (ProjectionTraining, "training.FIELD of a projection request"),
}


def text() -> str:
    parts = ["# Recipe", markdown.paragraph(INTRODUCTION), "## Presets", _presets()]
    for title, (model, _) in PARTS.items():
        parts += _section(title, model)
    return markdown.page(*parts)


def _presets() -> str:
    rows = [(markdown.code(name), about) for name, about in presets.DESCRIPTIONS.items()]
    return markdown.table(("preset", "what it is for"), rows)


def _section(title: str, model: type[BaseModel]) -> list[str]:
    """Return a model's fields, then those of the models that its fields hold."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    parts = [
        f"## {title}",
        f"Written `{PARTS[title][1]}`.",
        markdown.paragraph(str(schema.get("description", ""))),
        json_schema.fields(schema, link=_link, required=title == "Recipe"),
    ]
    # The other parts of a recipe have sections of their own.
    own = [name for name in definitions if name not in SHOWN or model is Policy]
    for name in own:
        definition = definitions[name]
        parts += [
            f"### {name}",
            markdown.paragraph(str(definition.get("description", ""))),
            json_schema.fields(definition, link=_link),
        ]
    return parts


# Models whose fields one section shows already.
SHOWN = {model.__name__ for model, _ in PARTS.values()} | set(
    Policy.model_json_schema().get("$defs", {})
)


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"
