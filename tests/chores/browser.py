"""Find or install the browser for the tests of the web pages."""

import os
import shutil
import sys

from tests.chores import say, succeeds

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of an installed browser, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def ensure_browser() -> None:
    """Install Chromium if it is missing: the package of Debian, or the build of Playwright.

    Without a browser the tests of the web pages are skipped with a message; in CI they fail.
    """
    if find_browser() is not None:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing Debian's chromium for the tests of the pages")
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        if succeeds(["apt-get", "update", "--quiet"]) and succeeds(install):
            return
    say("downloading Playwright's chromium for the tests of the pages")
    if not succeeds([sys.executable, "-m", "playwright", "install", "chromium"]):
        say("Chromium cannot be installed: the tests of the pages cannot run")
