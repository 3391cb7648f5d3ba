"""General text: a mix is limited against its worst parent, and its seed reads what it writes.

Covers: perplexities.
"""

import pytest

from engine.gates.general_gate import GeneralMeasurement
from engine.gates.mix_gate import GateReport
from engine.gates.perplexities import Perplexities
from engine.gates.policy import GeneralLimits
from tests.engine.gates.test_mix_gate import AGREES, POLICY, STRAYS, measured, verdict


def test_general_text_is_reported_and_limited_on_request() -> None:
    perplexity = Perplexities(seed=15, experts={"law": 16}, merge=14, assembled=17, finetuned=16.5)
    general = GeneralMeasurement(documents="ab" * 32, perplexity=perplexity)
    report = verdict(measured(), general=general)
    assert report.passed
    assert report.general is not None
    to_seed, to_parents = report.general.metrics
    assert {metric.stage for metric in report.general.metrics} == {"general"}
    assert to_seed.value == pytest.approx(1.1)
    assert to_parents.value == pytest.approx(16.5 / 16)
    strict = POLICY.model_copy(update={"general": GeneralLimits(max_perplexity_ratio_to_seed=1.01)})
    [failure] = verdict(measured(), strict, general=general).failures
    assert str(failure) == (
        "general text: general.perplexity_ratio_to_seed is 1.1, at most 1.01 is required"
    )


def test_a_mix_that_is_worse_than_every_parent_on_general_text_fails() -> None:
    perplexity = Perplexities(seed=15, experts={"law": 16}, merge=14, assembled=21)
    general = GeneralMeasurement(documents="ab" * 32, perplexity=perplexity)
    [failure] = verdict(measured(), general=general).failures
    assert failure.metric == "general.perplexity_ratio_to_parents"


def test_the_seed_reads_what_the_mix_writes_after_general_text() -> None:
    own = measured()
    general = GeneralMeasurement(
        documents="ab" * 32,
        perplexity=Perplexities(seed=15, experts={"law": 16}, merge=14, assembled=15),
        continuations=own.continuations,
        variations=own.variations,
        seed=[AGREES, AGREES, AGREES, STRAYS],
    )
    report = verdict(own, general=general)
    assert report.passed
    assert report.general is not None
    assert report.general.seed is not None
    assert report.general.seed.whole_share == 0.75
    shown = {metric.metric: metric for metric in report.general.metrics}
    assert shown["whole_share"].value == 0.75
    assert shown["whole_share"].threshold is None
    stored = report.model_dump(mode="json")
    assert GateReport.model_validate(stored) == report


def test_a_report_without_general_text_is_read_as_before() -> None:
    stored = verdict(measured()).model_dump(mode="json")
    del stored["general"]
    assert "general" not in stored["policy"]
    assert GateReport.model_validate(stored).general is None
