"""The page of the settings, generated from the settings class."""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reference_pages import markdown
from registry.settings import Settings

INTRODUCTION = """\
Settings are environment variables. They are read once, when a process starts. A wrong value ends
the process with a message that names the variable."""


def text() -> str:
    fields = sorted(Settings.model_fields.items(), key=lambda item: _is_inherited(item[0]))
    rows = [
        (markdown.code(variable(name)), _default(field), _meaning(field)) for name, field in fields
    ]
    return markdown.page(
        "# Settings",
        markdown.paragraph(INTRODUCTION),
        markdown.table(("variable", "default", "meaning"), rows),
    )


def _is_inherited(field: str) -> bool:
    """Tell whether a field is a limit of requests; those come last."""
    return field not in Settings.__annotations__


def variable(field: str) -> str:
    return f"{Settings.model_config['env_prefix']}{field}".upper()


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        # Depends on the machine; the description says how.
        return ""
    return "" if field.default is None else markdown.code(field.default)


def _meaning(field: FieldInfo) -> str:
    return " ".join([field.description or "", *_choices(field)])


def _choices(field: FieldInfo) -> Iterator[str]:
    if get_origin(field.annotation) is Literal:
        choices = " or ".join(markdown.code(value) for value in get_args(field.annotation))
        yield f"Either {choices}."
