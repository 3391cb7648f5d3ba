"""`./nexusmix bench claims`: see the package."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from registry.blobs.blobs import LocalBlobs
from registry.settings import settings
from service.demo.bars import Bar
from tests.benchmarks.claims import ablations, experiments
from tests.benchmarks.claims.mixes import Mixes, NotMeasured
from tests.benchmarks.claims.page import page, plots, tables
from tests.benchmarks.claims.stored_results import Known
from tests.benchmarks.harness import markdown, reports

NAME = "claims"
PACKAGES = ("nexusmix", "torch", "numpy", "scipy")
MIN_ASSEMBLED, MIN_FINETUNED, MAX_ON_OLD = 0.85, 1.0, 1.01


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "the papers' claims and ours, on real text; can be interrupted")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="only these of all; the result keeps the others"
    )
    parser.add_argument("--families", nargs="+", metavar="FAMILY", help="only on these, likewise")
    parser.add_argument(
        "--found",
        action="store_true",
        help="tell what was measured before, and keep what the result has besides; only families"
        " are made where they are missing",
    )
    chosen = parser.parse_args(argv)
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / NAME / "blobs")
    known = Known() if chosen.quick else Known.of(chosen.output)
    for experiment in experiments.quick() if chosen.quick else experiments.all_of():
        if chosen.parts and experiment.part not in chosen.parts:
            continue
        if chosen.families and experiment.name not in chosen.families:
            continue
        reports.say(f"{experiment.part} on {experiment.name}")
        mixes = Mixes(
            experiment.family(blobs),
            blobs,
            windows=experiment.windows,
            questions=experiment.questions,
            found_only=chosen.found,
        )
        try:
            found = experiment.measure(mixes)
            known.renew(experiment.name, experiment.part, found, keeps=chosen.found)
        except NotMeasured:
            reports.say("not measured yet")
    told = known.families
    if not chosen.quick:
        plots.write(told, markdown.PLOTS / "claims")
        page.PAGE.write_text(page.renewed(page.PAGE.read_text(), told))
    return reports.write(chosen.output, figures=asdict(known), bars=_bars(told), packages=PACKAGES)


def _bars(families: Mapping[str, Any]) -> list[Bar]:
    """What is promised of the default preset, with experts that the projection saw nothing of."""
    found = families.get(tables.LARGE, {})
    bars = []
    ablated = found.get("ablations", {})
    for kind, name, least in (
        ("assembled", ablations.DEFAULT, MIN_ASSEMBLED),
        ("finetuned", ablations.EXPERTS, MIN_FINETUNED),
    ):
        if own := ablated.get(kind, {}).get(name):
            title = f"share of the right experts' gain, {kind}, {name}"
            bars.append(Bar(title, own["share_of_gain"][0], ">=", least))
    tokens = experiments.DEFAULT_TOKENS
    if own := found.get("upcycling", {}).get("nexus", {}).get(str(tokens)):
        title = f"share of the right experts' gain, {tokens:,} tokens of default finetune"
        bars.append(Bar(title, own["share_of_gain"][0], ">=", MIN_FINETUNED))
    extended = found.get("extension", {}).get("nexus", {})
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
