import math

import pytest

from service.reports.mix_comparison import MixComparison
from tests.service.gate_reports import GENERAL, make_report


def test_share_of_gain_is_measured_in_mean_log_perplexity() -> None:
    comparison = MixComparison.of(make_report(assembled=(50.0, 50.0), finetuned=(25.0, 25.0)))

    assert comparison.finetuned is not None
    assert comparison.share_of_gain(comparison.seed) == 0
    assert comparison.share_of_gain(comparison.assembled) == pytest.approx(0.5)
    assert comparison.share_of_gain(comparison.finetuned) == pytest.approx(1)
    assert comparison.seed.mean_log == pytest.approx(math.log(100))


def test_a_mix_without_finetune_has_no_column_after_it() -> None:
    comparison = MixComparison.of(make_report(assembled=(50.0, 50.0), finetuned=None))

    assert comparison.finetuned is None
    titles = [column.title for column in comparison.columns]
    assert titles == ["seed", "sea", "law", "mean merge", "mix before"]


def test_without_baselines_the_right_expert_stands_for_all() -> None:
    report = make_report(assembled=(50.0, 50.0), finetuned=None, general=GENERAL, baselines=False)
    comparison = MixComparison.of(report)
    titles = [column.title for column in comparison.columns]
    assert titles == ["seed", "right expert", "mix before"]
    assert comparison.oracle.values == (25.0, 25.0)
    # On general text no expert is the right one; the best counts.
    assert comparison.oracle.general == 16.0
    assert comparison.best(0) == 25.0


def test_best_is_the_lowest_of_a_row() -> None:
    comparison = MixComparison.of(make_report(assembled=(24.0, 50.0), finetuned=None))

    assert comparison.best(0) == 24.0
    assert comparison.best(1) == 25.0


def test_the_version_before_is_compared_in_its_own_domains() -> None:
    report = make_report(
        assembled=(50.0, 50.0), finetuned=(30.0, 40.0), base=(25.0, 90.0), known=["sea"]
    )
    comparison = MixComparison.of(report)

    titles = [column.title for column in comparison.columns]
    assert titles[-3:] == ["version before", "mix before", "mix after"]
    assert comparison.change(0) == pytest.approx(0.2)
    assert comparison.change(1) is None


def test_a_mix_without_a_base_has_no_version_before() -> None:
    comparison = MixComparison.of(make_report(assembled=(50.0, 50.0), finetuned=None))

    assert comparison.base is None
    assert comparison.change(0) is None


def test_general_text_stands_beside_the_domains_and_not_in_their_means() -> None:
    comparison, without = (
        MixComparison.of(
            make_report(
                assembled=(50.0, 50.0),
                finetuned=(25.0, 30.0),
                base=(25.0, 90.0),
                known=["sea", "law"],
                general=general,
            )
        )
        for general in (GENERAL, None)
    )
    assert [column.general for column in comparison.columns] == [15, 18, 16, 14, 16.5, 16, 15.5]
    assert comparison.general_change == pytest.approx(15.5 / 16.5 - 1)
    assert comparison.seed.mean_log == without.seed.mean_log
    assert (without.has_general, without.general_change) == (False, None)
