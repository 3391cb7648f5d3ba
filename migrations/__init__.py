"""The history of the tables, and the way to bring a database to its end."""

from pathlib import Path

from alembic import command
from alembic.config import Config


def upgrade(url: str, *, revision: str = "head") -> None:
    """Apply what is missing at `url`; harmless when nothing is, safe when two do it at once."""
    command.upgrade(config(url), revision)


def downgrade(url: str, *, revision: str) -> None:
    command.downgrade(config(url), revision)


def config(url: str) -> Config:
    """Alembic's configuration for one database, from wherever the package is installed."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["url"] = url
    return made
