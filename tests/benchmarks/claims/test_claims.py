"""Tests of the whole experiment in its quick form: signs of differences, and the caches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.jobs import pipeline
from registry.blobs.blobs import LocalBlobs
from tests.benchmarks.claims import __main__ as claims
from tests.benchmarks.claims import attention, mixes, versions
from tests.benchmarks.claims.attention import AVERAGED, REGRESSED
from tests.benchmarks.claims.families import moments, small_llama
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import averages_table, page
from tests.benchmarks.harness import reports


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread: in tiny networks threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_signs_are_as_claimed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)["tiny"]
    upcycling, extension = first["upcycling"], first["extension"]
    assert share(upcycling["seed"]) == 0
    assert share(upcycling["right expert"]) == 1
    # The default knows the domains before any training, and better after it.
    untrained, trained = upcycling["nexus"].values()
    assert share(untrained) > max(share(upcycling["merge"]), share(upcycling["flexolmo"]["0"]))
    assert share(upcycling["flexolmo"]["0"]) > share(upcycling["linear"]["0"])
    assert share(trained) > share(untrained)
    # It knows an added domain without training. A new random row does not.
    assert extension["nexus"]["0"]["new"][0] > 0.5
    assert extension["linear"]["0"]["new"][0] < 0.5
    assert extension["nexus"]["0"]["new_tokens_to_new"] > 0.5
    ablated = first["ablations"]["assembled"]
    assert share(ablated["default"]) > share(ablated["without the experts' own covariance"])
    # So it does on a domain that no default was chosen on.
    sealed = first["many"]["groups"]["sealed"]
    assert share(sealed["right expert"]) == 1
    assert share(sealed["nexus"]) > share(sealed["linear"])

    def make_again(*_: object) -> None:
        raise AssertionError("it was made before")

    monkeypatch.setattr(pipeline, "assemble", make_again)
    for name in ("read", "answers"):
        monkeypatch.setattr(mixes, name, make_again)
    assert run(tmp_path)["tiny"] == first


def test_tables_of_the_page_are_made_from_the_committed_results() -> None:
    results = json.loads((reports.RESULTS / "claims.json").read_text())
    text = page.PAGE.read_text()
    assert page.renewed(text, results["families"]) == text


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_regression_of_attention_keeps_more_than_the_mean(home: Path, blobs: LocalBlobs) -> None:
    """Of seed 0 the two lie within each other's intervals, and rounding decides."""
    family = small_llama.tiny_family(blobs, seed=1, trains="all")
    made = Mixes(family, blobs, windows=Windows.of(family, blobs, count=8))
    measured = attention.measure_averages(made)
    mean, regression = (
        measured["by the label"][name]["share_of_gain"][0] for name in (AVERAGED, REGRESSED)
    )
    assert mean < regression < measured["right expert"]["share_of_gain"][0]
    table = averages_table.of({averages_table.MILD: {"attention": measured}})
    assert table is not None
    assert f"| {REGRESSED}, by the label | {100 * regression:.0f} [" in table


def test_the_mean_needs_no_moments(home: Path, blobs: LocalBlobs) -> None:
    """Such mixes have the cache keys that they always had."""
    family = small_llama.tiny_family(blobs, seed=0)
    assert not moments.are_needed(family, family.experts)
    made = Mixes(family, blobs, windows=Windows.of(family, blobs, count=8))
    by_default = made.inputs(Mix(experts=made.domains))
    key = versions.key_of(by_default)
    assert not key.keys() & {"moments_digests", "base_moments_digests"}
    plain = made.inputs(Mix(experts=made.domains, changes={"averaging": "mean"}))
    assert key == versions.key_of(plain)
    assert averages_table.of({}) is None


def run(folder: Path) -> dict[str, Any]:
    output = folder / "result.json"
    assert claims.main(["--quick", "--output", str(output)]) == 0
    families: dict[str, Any] = json.loads(output.read_text())["families"]
    return families


def share(figures: dict[str, Any]) -> float:
    value: float = figures["share_of_gain"][0]
    return value
