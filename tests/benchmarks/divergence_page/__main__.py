"""`./nexusmix bench divergence-page`: see the package."""

import argparse
import sys
from collections.abc import Sequence

from tests.benchmarks.divergence_page import page, plots
from tests.benchmarks.harness import markdown, reports


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="nexusmix bench divergence-page",
        description="write the tables and plots of docs/pages/results/divergence.md",
    )
    parser.parse_args(argv)
    results = page.results()
    page.PAGE.write_text(page.renewed(page.PAGE.read_text(), results))
    plots.write(results, markdown.PLOTS / "divergence")
    reports.say(f"{page.PAGE.name} made of {', '.join(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
