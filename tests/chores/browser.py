"""The browser that tests of the pages drive."""

import os
import shutil
import sys

from tests.chores import say, succeeds

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def ensure_browser() -> None:
    """Bring Chromium for the tests of the pages: the system's, Debian's, or Playwright's own.

    Without one those tests name what is missing; in CI they fail.
    """
    if find_browser() is not None:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing Debian's chromium for the tests of the pages")
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        if succeeds(["apt-get", "update", "--quiet"]) and succeeds(install):
            return
    say("fetching Playwright's chromium for the tests of the pages")
    if not succeeds([sys.executable, "-m", "playwright", "install", "chromium"]):
        say("no Chromium could be had: the tests of the pages cannot run")
