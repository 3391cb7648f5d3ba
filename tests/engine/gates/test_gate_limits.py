"""Limits of two models' divergence: lowered to the noise floor, or refused beyond it."""

from typing import Any

import pytest

from engine.divergence.aggregates import Summary, distribution_of
from engine.gates.gate_limits import (
    DivergenceLimits,
    check_reachable,
    metrics,
    unreachable_limits,
)


def summary(
    *, fdt: float = 20, sdt: float = 0, perplexity: float = 2.0, difference: float = 0.0
) -> Summary:
    return Summary(
        num_prefixes=4,
        num_tokens=80,
        equal_share=1 - sdt / 20,
        perplexity=perplexity,
        fdt=distribution_of([fdt] * 4),
        sdt=distribution_of([sdt] * 4),
        whole_share=float(sdt == 0),
        dppl=distribution_of([perplexity] * 4),
        logprob_difference=difference,
    )


PERFECT = summary()


def thresholds(floor: Summary, **limits: Any) -> dict[str, float | None]:
    reported = metrics(DivergenceLimits(**limits), PERFECT, floor)
    return {metric.metric: metric.threshold for metric in reported if metric.threshold is not None}


def test_every_metric_is_reported_and_only_limited_ones_are_judged() -> None:
    reported = list(metrics(DivergenceLimits(max_sdt=1), summary(fdt=3, sdt=5), PERFECT))
    assert {m.metric: m.value for m in reported} == {
        "equal_share": 0.75, "fdt_25": 3, "fdt_50": 3, "fdt_75": 3, "whole_share": 0,
        "sdt": 5, "dppl_ratio": 1, "logprob_difference": 0,
    }  # fmt: skip
    assert [m.metric for m in reported if not m.kept] == ["sdt"]


def test_perplexity_ratio_is_relative_to_the_noise_floor() -> None:
    reported = metrics(DivergenceLimits(), summary(perplexity=3), summary(perplexity=2))
    assert {m.metric: m.value for m in reported}["dppl_ratio"] == 1.5


def test_limits_that_the_floor_reaches_are_unchanged() -> None:
    limits = {"min_fdt_75": 18.0, "max_sdt": 0.5, "max_logprob_difference": 1e-4}
    assert thresholds(PERFECT, **limits) == {
        "fdt_75": 18, "sdt": 0.5, "logprob_difference": 1e-4
    }  # fmt: skip


def test_limits_beyond_the_floor_are_lowered_to_it() -> None:
    floor = summary(fdt=10, sdt=3, difference=1e-3)
    limits = {"min_fdt_75": 18.0, "max_sdt": 0.5, "max_logprob_difference": 1e-4}
    assert thresholds(floor, **limits) == {
        "fdt_75": 10, "sdt": 3, "logprob_difference": 2e-3
    }  # fmt: skip


def test_an_explicit_limit_beyond_the_floor_is_a_problem() -> None:
    limits = DivergenceLimits(min_fdt_75=18, max_sdt=0.5)
    floors = {"law": PERFECT, "code": summary(fdt=10)}
    (problem,) = unreachable_limits(limits, floors, at=("gates", "served"))
    assert problem.pointer == "/gates/served/min_fdt_75"
    assert problem.detail == (
        "is 18, but on code the reference against itself reaches 10: ask for at most that"
    )


def test_a_default_limit_beyond_the_floor_is_no_problem() -> None:
    class Limits(DivergenceLimits):
        min_fdt_75: float | None = 18

    assert not list(unreachable_limits(Limits(), {"code": summary(fdt=10)}))


@pytest.mark.parametrize("field", ["min_fdt_25", "min_fdt_50", "min_fdt_75", "max_sdt"])
def test_a_limit_above_the_number_of_compared_tokens_is_refused(field: str) -> None:
    limits = DivergenceLimits.model_validate({field: 33})
    check_reachable(limits, completion_tokens=33)
    with pytest.raises(ValueError, match=rf"served\.{field} is 33, but only 32 tokens"):
        check_reachable(limits, completion_tokens=32, at="served.")
