"""Fields of a JSON Schema as a Markdown table: type, limits, default and meaning of each."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reference_pages import markdown

Schema = Mapping[str, Any]
# From the name of a definition to how a type that refers to it is shown.
Link = Callable[[str], str]

# Words for the limits of JSON Schema, in the order in which they are printed.
LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "characters ≥ {}",
    "maxLength": "characters ≤ {}",
    "minItems": "entries ≥ {}",
    "maxItems": "entries ≤ {}",
    "pattern": "matches `{}`",
}


def fields(schema: Schema, *, link: Link, required: bool = True) -> str:
    """Return the table of an object's fields; `required` marks those that must be given."""
    needed = schema.get("required", ()) if required else ()
    rows = [
        (
            markdown.code(name) + (" (required)" if name in needed else ""),
            type_of(field, link=link),
            _default(field),
            str(field.get("description", "")),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return markdown.table(("field", "type", "default", "meaning"), rows) if rows else ""


def type_of(field: Schema, *, link: Link) -> str:
    """Return the type with its limits, such as `integer, ≥ 1` or `string or null`."""
    return ", ".join([_type(field, link=link), *_limits(field)])


def _type(field: Schema, *, link: Link) -> str:
    if "$ref" in field:
        return link(field["$ref"].rpartition("/")[2])
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in field:
            return " or ".join(type_of(option, link=link) for option in field[choice])
    if "const" in field:
        return markdown.code(json.dumps(field["const"]))
    if "enum" in field:
        return " or ".join(markdown.code(json.dumps(value)) for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {type_of(field.get('items', {}), link=link)}"
    if "format" in field:
        return f"{field['type']} ({field['format']})"
    if field.get("type") == "object" and "properties" in field:
        return link(str(field["title"]))
    values = field.get("additionalProperties")
    if field.get("type") == "object" and isinstance(values, Mapping):
        return f"object of {type_of(values, link=link)}"
    return str(field.get("type", "any"))


def _limits(field: Schema) -> Iterator[str]:
    for name, words in LIMITS.items():
        if name in field:
            value = field[name]
            # OpenAPI documents have 1.0 where the model has 1.
            is_whole = isinstance(value, int | float) and value == int(value)
            yield words.format(f"{int(value):,}" if is_whole else value)


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    # The fields of an object have a table of their own.
    return "" if isinstance(value, Mapping) else markdown.code(json.dumps(value))
