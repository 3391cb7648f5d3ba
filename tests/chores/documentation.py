"""Build the documentation into the package of the service."""

import os
import sys

from tests.chores import ROOT, say, succeeds

CONFIG = ROOT / "docs" / "mkdocs.yml"
# It lies in the package `service`, so that a wheel contains it and the service needs no network.
SITE = ROOT / "service" / "docs_site"
# With `--strict` a broken link or reference is a failure.
COMMAND = (
    *(sys.executable, "-m", "mkdocs", "build", "--strict"),
    *("--config-file", str(CONFIG), "--site-dir", str(SITE)),
)
# It hides the theme's announcement of a successor.
QUIET = {"NO_MKDOCS_2_WARNING": "1"}


def build() -> bool:
    """Build the pages; return whether there was no error and no warning."""
    if not succeeds(COMMAND, env=QUIET | os.environ):
        return False
    say(f"built {SITE.relative_to(ROOT)}; a running service shows it under /docs")
    return True
