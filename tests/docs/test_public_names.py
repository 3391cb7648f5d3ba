"""Tests of public names: each has a text at its definition.

The reference is generated from these texts.
"""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup

import engine.divergence
from reference_pages import command_line, metrics, recipe, rest_api, settings
from registry.settings import Settings
from service.app import create_app
from service.cli.app import app as cli
from service.json_schemas import SCHEMAS
from tests.chores.__main__ import app as chores

OPENAPI = create_app().openapi()


def undocumented_commands(group: TyperGroup, path: str = "") -> Iterator[str]:
    """Yield the commands, arguments and options without a text."""
    for name, command in group.commands.items():
        if not command.help:
            yield f"{path}{name}"
        for parameter in command.params:
            if not getattr(parameter, "help", None):
                yield f"{path}{name} {parameter.name}"
        if isinstance(command, TyperGroup):
            yield from undocumented_commands(command, f"{path}{name} ")


def undocumented_fields(schema: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the fields without a text, of a JSON Schema and its definitions."""
    for field, content in schema.get("properties", {}).items():
        if not content.get("description"):
            yield f"{name}.{field}"
    for definition, content in schema.get("$defs", {}).items():
        yield from undocumented_fields(content, definition)


@pytest.mark.parametrize("program", [cli, chores], ids=["nexusmix", "chores"])
def test_commands_arguments_and_options_have_texts(program: Any) -> None:
    assert list(undocumented_commands(command_line.program(program))) == []


def test_routes_and_parameters_have_texts() -> None:
    missing = []
    for path, method, operation in rest_api.operations(OPENAPI):
        if not operation.get("summary") or not operation.get("description"):
            missing.append(f"{method} {path}")
        for parameter in operation.get("parameters", ()):
            if not parameter.get("description"):
                missing.append(f"{method} {path} {parameter['name']}")
    assert missing == []


def test_routes_say_what_errors_look_like() -> None:
    silent = [
        path
        for path, _, route in rest_api.operations(OPENAPI)
        if "default" not in route["responses"]
    ]
    assert silent == []


def test_fields_of_requests_and_answers_have_texts() -> None:
    schemas = rest_api.schemas(OPENAPI)
    assert [f for name, s in schemas.items() for f in undocumented_fields(s, name)] == []


@pytest.mark.parametrize("model", [part for part, _ in recipe.PARTS.values()])
def test_fields_of_recipes_have_texts(model: type[BaseModel]) -> None:
    assert list(undocumented_fields(model.model_json_schema(), model.__name__)) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_fields_of_documents_have_texts(name: str) -> None:
    assert list(undocumented_fields(SCHEMAS[name].model_json_schema(), name)) == []


def test_settings_have_texts() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_metrics_have_texts() -> None:
    gate = [
        f"{stage}.{metric}"
        for metric, by_stage in metrics.gate_metrics().items()
        for stage, meaning in by_stage.items()
        if not meaning
    ]
    service = [name for name, (_, meaning) in metrics.service_metrics().items() if not meaning]
    assert gate + service == []
    assert metrics.service_metrics()


def test_the_divergence_library_has_docstrings() -> None:
    missing = []
    for info in pkgutil.iter_modules(engine.divergence.__path__):
        module = import_module(f"engine.divergence.{info.name}")
        tree = ast.parse(inspect.getsource(module))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        found = [
            node
            for body in (tree.body, *(c.body for c in classes))
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
        ]
        missing += [
            f"{info.name}.{node.name}"
            for node in found
            if not node.name.startswith("_") and ast.get_docstring(node) is None
        ]
    assert missing == []


def test_the_reference_has_every_command_route_and_setting_once() -> None:
    headings = [line for line in command_line.text().splitlines() if line.startswith("###")]
    commands = {
        *(f"### `nexusmix {name}`" for name in command_line.program(cli).commands),
        *(f"### `./nexusmix {name}`" for name in command_line.program(chores).commands),
    }
    assert sorted(h for h in headings if h.count("#") == 3) == sorted(commands)
    rows = [line.split("`")[1] for line in settings.text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(map(settings.variable, Settings.model_fields))
    routes = re.findall(r"^`[A-Z]+ /.*`$", rest_api.text(), re.MULTILINE)
    operations = rest_api.operations(OPENAPI)
    assert sorted(routes) == sorted(f"`{method.upper()} {path}`" for path, method, _ in operations)


def test_a_name_without_a_text_is_found() -> None:
    class Bare(BaseModel):
        field: int

    assert list(undocumented_fields(Bare.model_json_schema(), "Bare")) == ["Bare.field"]
