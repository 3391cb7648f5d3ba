"""The page of the command line, generated from the Typer programs."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import typer
from typer.cli import get_docs_for_click
from typer.core import TyperGroup

from reference_pages import markdown
from service.cli.app import app
from tests.chores.__main__ import app as chores

INTRODUCTION = """\
In a checkout call `./nexusmix`; it makes its environment when needed. An installed package has
`nexusmix`, without the chores.

A command ends with 0 when it did what was asked. It ends with 1 when the service refuses or fails,
and prints why. It ends with 2 when the command line itself is wrong."""

PANEL_OF_CHORES = "Chores in a checkout"


def text() -> str:
    group = program(app)
    parts = ["# Command line", markdown.paragraph(INTRODUCTION)]
    for panel, names in groupby(group.commands, key=lambda name: _panel(group, name)):
        parts += _section(panel, group, names, prefix="nexusmix")
    group = program(chores)
    parts += _section(PANEL_OF_CHORES, group, group.commands, prefix="./nexusmix")
    return markdown.page(*parts)


def program(app: typer.Typer) -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


def _panel(group: TyperGroup, name: str) -> str:
    return str(getattr(group.commands[name], "rich_help_panel", "Others"))


def _section(title: str, group: TyperGroup, names: Iterable[str], *, prefix: str) -> Iterator[str]:
    yield f"## {title}"
    for name in names:
        command = group.commands[name]
        context = typer.Context(command, info_name=name)
        # Typer's own generator. Without an object that asks for markup it leaves texts as they are.
        context.obj = {}
        yield get_docs_for_click(obj=command, ctx=context, indent=2, call_prefix=prefix)
