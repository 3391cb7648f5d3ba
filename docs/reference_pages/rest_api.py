"""The page of the REST API, generated from the OpenAPI document that the service answers with."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from reference_pages import json_schema, markdown, recipe
from reference_pages.json_schema import Schema
from registry.errors import NexusmixError
from service import scopes
from service.app import create_app
from service.error_codes import code_of
from service.errors import STATUSES

# What FastAPI writes about a status that nobody has described.
UNTOLD = "Successful Response"
METHODS = ("get", "head", "post", "put", "patch", "delete")
INTRODUCTION = """\
The service answers below `/api/v1`; `/v1` speaks the dialect of OpenAI. The same document for
programs is at `/api/v1/openapi.json`.

A request carries the key as `Authorization: Bearer KEY`. `./nexusmix key` prints the key of an
installation, `./nexusmix keys create` makes others. Each route asks for one scope; a key without it
gets 403.

Lists come in pages. `has_more` says that there is another page, which starts `after` the last `id`.
A request with an `Idempotency-Key` header can be repeated: the same key gives the same answer."""


ERRORS = """\
Every route below `/api/v1` answers an error with an [ErrorBody](#errorbody). The routes below `/v1`
answer with OpenAI's envelope, and with 400 where the table has 422."""


def text() -> str:
    document = create_app().openapi()
    parts = ["# REST API", markdown.paragraph(INTRODUCTION)]
    for tag, operations in _by_tag(document).items():
        parts.append(f"## {tag}")
        for path, method, operation in operations:
            parts += _operation(path, method, operation)
    parts += ["## Errors", markdown.paragraph(ERRORS), _errors(), "## Bodies"]
    for name, schema in schemas(document).items():
        about = markdown.paragraph(str(schema.get("description", "")))
        parts += [f"### {name}", about, _body(schema)]
    return markdown.page(*parts)


def _errors() -> str:
    rows = [
        (markdown.code(code_of(kind)), str(status), inspect.getdoc(kind) or "")
        for kind, status in STATUSES.items()
        if kind is not NexusmixError
    ]
    return markdown.table(("code", "status", "meaning"), rows)


def schemas(document: Schema) -> dict[str, Schema]:
    """Return the bodies of requests and responses, by name."""
    return dict(document["components"]["schemas"])


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Yield path, method and description of every route."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _by_tag(document: Schema) -> Mapping[str, list[tuple[str, str, Schema]]]:
    found: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, method, operation in operations(document):
        found.setdefault(operation["tags"][0], []).append((path, method, operation))
    return found


def _operation(path: str, method: str, operation: Schema) -> Iterator[str]:
    summary, description = operation["summary"], markdown.paragraph(operation["description"])
    yield f"### {summary}"
    yield markdown.code(f"{method.upper()} {path}")
    if description != f"{summary}.":
        yield description
    scope = scopes.needed(method.upper(), path)
    yield "Needs no key." if scope is None else f"Scope: {markdown.code(scope)}."
    parameters = operation.get("parameters", ())
    if parameters:
        rows = [_parameter(parameter) for parameter in parameters]
        yield markdown.table(("parameter", "in", "type", "default", "meaning"), rows)
    if "requestBody" in operation:
        yield f"Request: {_content(operation['requestBody'])}."
    yield _responses(operation["responses"])


def _parameter(parameter: Schema) -> tuple[str, ...]:
    schema = parameter["schema"]
    default = schema.get("default")
    return (
        markdown.code(parameter["name"]) + (" (required)" if parameter.get("required") else ""),
        parameter["in"],
        json_schema.type_of(schema, link=_link),
        "" if default is None else markdown.code(default),
        str(parameter.get("description", "")),
    )


def _responses(responses: Mapping[str, Any]) -> str:
    rows = [
        (status, response["description"].replace(UNTOLD, ""), _content(response))
        for status, response in responses.items()
    ]
    return markdown.table(("status", "meaning", "body"), rows)


def _content(body: Schema) -> str:
    for media_type, content in body.get("content", {}).items():
        schema = content.get("schema", {})
        return json_schema.type_of(schema, link=_link) if schema else media_type
    return ""


def _body(schema: Schema) -> str:
    if "enum" in schema:
        return f"One of {json_schema.type_of(schema, link=_link)}."
    return json_schema.fields(schema, link=_link)


def _link(name: str) -> str:
    # Parts of a recipe are written out in a request, and have a page of their own.
    page = "recipe.md" if name in recipe.PARTS else ""
    return f"[{name}]({page}#{name.lower()})"
