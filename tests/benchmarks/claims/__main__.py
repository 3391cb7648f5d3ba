"""Run `./nexusmix bench claims`: all experiments, or some of them; then fill the page."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from registry.blobs.blobs import LocalBlobs
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.claims import ablations, experiments
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.mixes import Mixes, NotMeasured
from tests.benchmarks.claims.page import page, plots, tables
from tests.benchmarks.claims.stored_results import StoredResults
from tests.benchmarks.harness import markdown, reports

NAME = "claims"
PACKAGES = ("nexusmix", "torch", "numpy", "scipy")
MIN_ASSEMBLED, MIN_FINETUNED, MAX_ON_OLD = 0.85, 1.0, 1.01


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(
        NAME, "the papers' claims and ours, on real text; an interrupted run continues"
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="only these parts; the result keeps the others"
    )
    parser.add_argument(
        "--families",
        nargs="+",
        metavar="FAMILY",
        help="only on these families; the result keeps the others",
    )
    parser.add_argument(
        "--found",
        action="store_true",
        help="measure nothing: use the measurements of earlier runs, and keep the other figures of"
        " the result; only missing families are trained",
    )
    chosen = reports.chosen(parser, argv)
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / NAME / "blobs")
    stored = StoredResults() if chosen.quick else StoredResults.of(chosen.output)
    for experiment in experiments.quick() if chosen.quick else experiments.all_of():
        if chosen.parts and experiment.part not in chosen.parts:
            continue
        if chosen.families and experiment.name not in chosen.families:
            continue
        reports.say(f"{experiment.part} on {experiment.name}")
        family = experiment.family(blobs)
        mixes = Mixes(
            family,
            blobs,
            windows=Windows.of(family, blobs, count=experiment.windows),
            questions=experiment.questions,
            found_only=chosen.found,
        )
        try:
            figures = experiment.measure(mixes)
            stored.renew(experiment.name, experiment.part, figures, keeps=chosen.found)
        except NotMeasured:
            reports.say("not measured yet")
    families = stored.families
    if not chosen.quick:
        plots.write(families, markdown.PLOTS / "claims")
        page.PAGE.write_text(page.renewed(page.PAGE.read_text(), families))
    return reports.write(
        chosen.output, figures=asdict(stored), bars=_bars(families), packages=PACKAGES
    )


def _bars(families: Mapping[str, Any]) -> list[Bar]:
    """Return the promises about the default preset.

    The projection has read no text of the experts.
    """
    measured = families.get(tables.LARGE, {})
    bars = []
    ablated = measured.get("ablations", {})
    for kind, name, least in (
        ("assembled", ablations.DEFAULT, MIN_ASSEMBLED),
        ("finetuned", ablations.EXPERTS, MIN_FINETUNED),
    ):
        if figures := ablated.get(kind, {}).get(name):
            title = f"share of the right experts' gain, {kind}, {name}"
            bars.append(Bar(title, figures["share_of_gain"][0], ">=", least))
    tokens = experiments.DEFAULT_TOKENS
    if figures := measured.get("upcycling", {}).get("nexus", {}).get(str(tokens)):
        title = f"share of the right experts' gain, {tokens:,} tokens of default finetune"
        bars.append(Bar(title, figures["share_of_gain"][0], ">=", MIN_FINETUNED))
    extended = measured.get("extension", {}).get("nexus", {})
    for tokens, least in ((0, MIN_ASSEMBLED), (experiments.TOKENS, MIN_FINETUNED)):
        if joined := extended.get(str(tokens)):
            after = f"after {tokens:,} tokens"
            bars.append(Bar(f"gain on a domain that joins, {after}", joined["new"][0], ">=", least))
            bars.append(
                Bar(f"old domains' perplexity, {after}", joined["old"][0], "<=", MAX_ON_OLD)
            )
    return bars


if __name__ == "__main__":
    sys.exit(main())
