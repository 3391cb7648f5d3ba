"""The comparison gate: verdicts, failures, refused policies and the report."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from engine.divergence.metrics import Continuation, Reading
from engine.gates import comparison_gate
from engine.gates.comparison_gate import DivergenceReport, DomainReadings, ModelPolicy, Side
from registry.checkpoints.manifests import canonical_json
from registry.errors import InvalidInput

TOKENS = (1, 2, 3, 4)
MARGINS = (0.5, 0.25, 2.0, 4.0)
AGREES = Reading(TOKENS, (-0.1,) * 4)
LATE, EARLY = Reading((1, 2, 9, 4), (-0.1,) * 4), Reading((1, 9, 9, 4), (-0.1,) * 4)
NUM_PROMPTS = 4


def decode(tokens: Sequence[int]) -> str:
    return " ".join(str(token) for token in tokens)


def make_readings(*candidate: Reading, noise: Reading = AGREES) -> DomainReadings:
    return DomainReadings(
        domain="law",
        continuations=[Continuation((100, 101), TOKENS, MARGINS)] * NUM_PROMPTS,
        variations={
            "in one pass": [AGREES] * NUM_PROMPTS,
            "on other threads": [noise] * NUM_PROMPTS,
        },
        candidate=list(candidate),
    )


def verdict(measured: DomainReadings, **policy: Any) -> DivergenceReport:
    return comparison_gate.judge(
        ModelPolicy(completion_tokens=4, **policy),
        reference=Side(name="a", digest="a" * 64),
        candidate=Side(name="b", digest="b" * 64),
        domains=[measured],
        decode=decode,
    )


def test_an_equal_candidate_passes() -> None:
    report = verdict(make_readings(*[AGREES] * NUM_PROMPTS))
    assert report.passed
    assert report.domains[0].candidate.survival == (1, 1, 1, 1)


def test_a_divergent_candidate_fails() -> None:
    report = verdict(make_readings(*[EARLY] * NUM_PROMPTS), max_sdt=1.5)
    assert [f.metric for f in report.failures] == ["equal_share", "fdt_75", "sdt"]
    assert str(report.failures[1]) == (
        "law: fdt_75 is 1, at least 3 is required"
        " (prompt 0 diverges first, at token 1: '2' is read as '9')"
    )


def test_lower_probabilities_fail_although_every_argmax_agrees() -> None:
    report = verdict(make_readings(*[Reading(TOKENS, (-0.2,) * 4)] * NUM_PROMPTS))
    assert [f.metric for f in report.failures] == ["dppl_ratio"]


def test_other_logprobs_fail_although_argmaxes_and_perplexity_agree() -> None:
    other = Reading(TOKENS, (-0.11, -0.09, -0.11, -0.09))
    report = verdict(make_readings(*[other] * NUM_PROMPTS), max_logprob_difference=0.005)
    [failure] = report.failures
    assert failure.metric == "logprob_difference"
    assert failure.value == pytest.approx(0.01)


def test_nan_logprobs_fail() -> None:
    report = verdict(make_readings(*[Reading(TOKENS, (math.nan,) * 4)] * NUM_PROMPTS))
    assert not report.passed


def test_examples_begin_with_the_largest_margins() -> None:
    [domain] = verdict(make_readings(AGREES, EARLY, LATE, EARLY)).domains
    assert [(e.prompt, e.position, e.margin) for e in domain.examples] == [
        (2, 2, 2.0),
        (1, 1, 0.25),
        (3, 1, 0.25),
    ]
    first = domain.examples[0]
    assert (first.context, first.text, first.predicted_text) == ("100 101 1 2", "3", "9")


def test_noise_floor_is_the_worst_variation_and_lowers_default_limits() -> None:
    report = verdict(make_readings(*[LATE] * NUM_PROMPTS, noise=LATE))
    [domain] = report.domains
    assert domain.noise_floor.fdt.p75 == 2
    assert domain.variations["in one pass"].fdt.p75 == 4
    assert report.passed


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"min_fdt_75": 3}, "is 3, but on law the reference against itself reaches 2: ask for at"),
        ({"min_equal_share": 0.9}, "is 0.9, but on law the reference against itself reaches 0.75"),
        ({"max_sdt": 0.5}, "is 0.5, but on law the reference against itself reaches 1: ask for at"),
    ],
)
def test_limits_that_the_reference_itself_misses_are_refused(
    policy: dict[str, Any], message: str
) -> None:
    measured = make_readings(*[LATE] * NUM_PROMPTS, noise=LATE)
    with pytest.raises(InvalidInput) as refused:
        verdict(measured, **policy)
    assert message in refused.value.problems[0].detail
    with pytest.raises(InvalidInput):
        comparison_gate.check_floor(
            ModelPolicy(completion_tokens=4, **policy),
            measured.continuations,
            measured.variations,
            domain="law",
        )


@pytest.mark.parametrize("field", ["min_fdt_75", "max_sdt"])
def test_limits_above_the_number_of_compared_tokens_are_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field} is 5, but only 4 tokens are compared"):
        ModelPolicy.model_validate({"completion_tokens": 4, field: 5})


def test_a_report_survives_json() -> None:
    report = verdict(make_readings(AGREES, EARLY, LATE, EARLY))
    stored = canonical_json(report.model_dump(mode="json"))
    assert DivergenceReport.model_validate_json(stored) == report
