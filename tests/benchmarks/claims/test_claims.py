"""Tests of the whole experiment in its quick form: signs of differences, and the caches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.jobs import pipeline
from tests.benchmarks.claims import __main__ as claims
from tests.benchmarks.claims import mixes
from tests.benchmarks.claims.page import page
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


def run(folder: Path) -> dict[str, Any]:
    output = folder / "result.json"
    assert claims.main(["--quick", "--output", str(output)]) == 0
    families: dict[str, Any] = json.loads(output.read_text())["families"]
    return families


def share(figures: dict[str, Any]) -> float:
    value: float = figures["share_of_gain"][0]
    return value
