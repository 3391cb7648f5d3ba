"""What the README lists is what there is."""

from pathlib import Path

import typer

from registry.settings import Settings
from service.cli.app import app

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_setting_is_listed() -> None:
    missing = [f for f in Settings.model_fields if f"`NEXUSMIX_{f.upper()}`" not in README]

    assert missing == []


def test_every_command_is_listed() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    table = README.partition("| command |")[2].partition("\n\n")[0]

    assert [name for name in group.commands if name not in table] == []
