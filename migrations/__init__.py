"""Migrations of the database, and functions that run them."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from registry.errors import Unavailable


def upgrade(url: str, *, revision: str = "head") -> None:
    """Upgrade the database at `url` to a revision.

    It can be repeated, and several processes may call it at the same time. Raises Unavailable with
    the database's own words if it does not answer or refuses us.
    """
    try:
        command.upgrade(config(url), revision)
    except OperationalError as error:
        reason = str(error.orig).splitlines()[0]
        raise Unavailable(f"the database cannot be used: {reason}") from error


def downgrade(url: str, *, revision: str) -> None:
    """Downgrade the database at `url` to a revision."""
    command.downgrade(config(url), revision)


def newest() -> str:
    """Return the revision that `upgrade` leads to."""
    head = ScriptDirectory.from_config(config("")).get_current_head()
    assert head is not None, "there is at least one revision"
    return head


def revisions() -> set[str]:
    """Return all revisions, from which `upgrade` leads to the newest."""
    scripts = ScriptDirectory.from_config(config("")).walk_revisions()
    return {script.revision for script in scripts}


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`.

    The folder of the scripts is the folder of this package, wherever it is installed.
    """
    alembic_config = Config()
    folder = str(Path(__file__).parent)
    alembic_config.set_main_option("script_location", folder.replace("%", "%%"))
    alembic_config.attributes["url"] = url
    return alembic_config
