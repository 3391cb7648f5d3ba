"""The documentation, as pages that the service brings along."""

import os
import sys

from tests.chores import ROOT, say, succeeds

CONFIG = ROOT / "docs" / "mkdocs.yml"
# A part of the package `service`: a wheel that is built afterwards has it, and needs no network.
SITE = ROOT / "service" / "docs_site"
# Strictly: a link or a reference that leads nowhere is a failure.
COMMAND = (
    *(sys.executable, "-m", "mkdocs", "build", "--strict"),
    *("--config-file", str(CONFIG), "--site-dir", str(SITE)),
)
# Without the theme's advertisement for its successor.
QUIET = {"NO_MKDOCS_2_WARNING": "1"}


def build() -> bool:
    """Build the pages into the service's package; return whether no warning came."""
    if not succeeds(COMMAND, env=QUIET | os.environ):
        return False
    say(f"built {SITE.relative_to(ROOT)}; a running service shows it under /docs")
    return True
