"""Migrations of the database, and functions that run them."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(url: str, *, revision: str = "head") -> None:
    """Upgrade the database at `url` to a revision.

    It can be repeated, and several processes may call it at the same time.
    """
    command.upgrade(config(url), revision)


def downgrade(url: str, *, revision: str) -> None:
    """Downgrade the database at `url` to a revision."""
    command.downgrade(config(url), revision)


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`.

    The folder of the scripts is the folder of this package, wherever it is installed.
    """
    alembic_config = Config()
    folder = str(Path(__file__).parent)
    alembic_config.set_main_option("script_location", folder.replace("%", "%%"))
    alembic_config.attributes["url"] = url
    return alembic_config
