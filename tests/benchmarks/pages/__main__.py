"""`./nexusmix bench pages`: see the package."""

import argparse
import sys
from collections.abc import Sequence

from tests.benchmarks.harness import reports
from tests.benchmarks.pages import pages


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="nexusmix bench pages",
        description="fill the tables of the results pages from the committed results",
    )
    parser.parse_args(argv)
    for name in pages.TABLES:
        pages.path(name).write_text(pages.renewed(name))
        reports.say(f"{name}.md is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
