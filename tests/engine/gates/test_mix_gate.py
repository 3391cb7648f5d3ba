"""The mix gate: verdicts, failures, refused policies and the report.

Covers: policy, report.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydantic import ValidationError

from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.gates.general_gate import GeneralMeasurement
from engine.gates.mix_gate import (
    GateReport,
    Measurements,
    Sides,
    judge,
)
from engine.gates.perplexities import Perplexities
from engine.gates.policy import (
    CandidateLimits,
    FinetunedLimits,
    ParentLimits,
    Policy,
    ServedLimits,
    Stage,
)
from registry import cpu_features
from registry.checkpoints.manifests import canonical_json
from registry.errors import InvalidInput

POLICY = Policy(completion_tokens=8, served=ServedLimits(min_fdt_75=6))
TOKENS = (1, 2, 3, 4, 5, 6, 7, 8)
MARGINS = (0.5,) * 8
AGREES = Reading(TOKENS, (-0.1,) * 8)
STRAYS = Reading((9, *TOKENS[1:]), (-0.1,) * 8)
LATER = Reading((*TOKENS[:2], 9, *TOKENS[3:]), (-0.1,) * 8)
NUM_PROMPTS = 4
SIDES = Sides(candidate="ab" * 32, against={"others": "cd" * 32})


def decode(tokens: Sequence[int]) -> str:
    return " ".join(str(token) for token in tokens)


def measured(
    served: Reading = AGREES,
    *,
    reread: Reading = AGREES,
    finetuned: float = 15.0,
    before: Sequence[Reading] = (AGREES,) * NUM_PROMPTS,
    base: float | None = None,
) -> Measurements:
    """Return measurements of one domain.

    `before` are readings of the mix before its finetune, and, when the perplexity `base` is given,
    of the previous version.
    """
    readings: dict[Stage, Sequence[Reading]] = {
        "served": [served] * NUM_PROMPTS,
        "finetuned": before,
    }
    if base is not None:
        readings["base"] = before
    return Measurements(
        domain="law",
        documents="ef" * 32,
        perplexity=Perplexities(
            seed=20,
            experts={"law": 12.0, "bible": 30.0},
            merge=22,
            assembled=16,
            finetuned=finetuned,
            base=base,
        ),
        continuations=[Continuation((100, 101), TOKENS, MARGINS)] * NUM_PROMPTS,
        variations={
            noise.IN_ONE_PASS: [AGREES] * NUM_PROMPTS,
            noise.OTHERWISE_BATCHED: [reread] * NUM_PROMPTS,
        },
        readings=readings,
    )


def verdict(
    measurements: Measurements,
    policy: Policy = POLICY,
    *,
    general: GeneralMeasurement | None = None,
) -> GateReport:
    return judge(
        policy,
        manifest_digest="ab" * 32,
        stages=dict.fromkeys(("assembled", "candidate", *measurements.readings), SIDES),
        domains=[measurements],
        general=general,
        decode=decode,
    )


def values(report: GateReport, stage: Stage) -> dict[str, float]:
    """Return the values of a stage's metrics in the only domain."""
    [domain] = report.domains
    return {metric.metric: metric.value for metric in domain.metrics if metric.stage == stage}


def test_an_equal_and_better_candidate_passes() -> None:
    report = verdict(measured())
    assert report.passed
    assert report.failures == ()
    assert report.domains[0].served.equal_share == 1
    assert "torch" in report.versions


def test_divergence_fails_and_names_its_place() -> None:
    report = verdict(measured(STRAYS))
    assert not report.passed
    assert [f.metric for f in report.failures] == [
        "served.equal_share",
        "served.fdt_25",
        "served.fdt_75",
        "served.whole_share",
    ]
    assert str(report.failures[2]) == (
        "law: served.fdt_75 is 0, at least 6 is required"
        " (prompt 0 diverges first, at token 0: '1' is read as '9')"
    )
    example = report.domains[0].examples["served"][0]
    assert (example.position, example.context) == (0, "100 101")
    assert (example.text, example.predicted_text) == ("1", "9")


def test_texts_that_diverge_at_once_fail_although_a_quarter_stays_whole() -> None:
    readings: dict[Stage, Sequence[Reading]] = {
        **measured().readings,
        "served": [AGREES, AGREES, STRAYS, STRAYS],
    }
    measurements = replace(measured(), readings=readings)
    limits = ServedLimits(min_equal_share=None, min_fdt_75=6)
    report = verdict(measurements, POLICY.model_copy(update={"served": limits}))
    assert values(report, "served")["fdt_75"] == len(TOKENS)
    assert [f.metric for f in report.failures] == ["served.fdt_25", "served.whole_share"]


def test_texts_that_diverge_late_fail_although_percentiles_are_high() -> None:
    late = Reading((*TOKENS[:-1], 9), (-0.1,) * 8)
    readings: dict[Stage, Sequence[Reading]] = {
        **measured().readings,
        "served": [AGREES, AGREES, late, late],
    }
    limits = ServedLimits(min_equal_share=None, min_fdt_75=6, min_fdt_25=6)
    report = verdict(
        replace(measured(), readings=readings), POLICY.model_copy(update={"served": limits})
    )
    assert [f.metric for f in report.failures] == ["served.whole_share"]
    assert report.failures[0].value == 0.5


def test_a_stored_policy_without_the_limit_keeps_its_meaning() -> None:
    stored = POLICY.model_dump(mode="json")
    stored["served"]["min_fdt_25"] = None
    assert Policy.model_validate(stored).served.min_fdt_25 is None
    # A limit that came later is not part of it, so the digests of recipes stay.
    assert "min_whole_share" not in stored["served"]
    assert "min_whole_share" not in stored["finetuned"]


def test_a_failure_names_the_prompt_that_diverged_first() -> None:
    before = [AGREES, LATER, STRAYS, STRAYS]
    limits = FinetunedLimits(min_equal_share=0.99)
    [failure] = verdict(
        measured(before=before), POLICY.model_copy(update={"finetuned": limits})
    ).failures
    assert failure.metric == "finetuned.equal_share"
    assert failure.first is not None
    assert (failure.first.prompt, failure.first.position) == (2, 0)


def test_every_stage_is_measured_and_only_limited_metrics_are_judged() -> None:
    report = verdict(measured(before=[STRAYS] * NUM_PROMPTS, base=15.0))
    assert report.passed
    assert values(report, "assembled") == pytest.approx(
        {"perplexity_ratio_to_seed": 16 / 20, "perplexity_ratio_to_expert": 16 / 12}
    )
    assert values(report, "candidate") == pytest.approx(
        {"perplexity_ratio_to_seed": 15 / 20, "perplexity_ratio_to_expert": 15 / 12}
    )
    ratios: dict[Stage, float] = {"finetuned": 15 / 16, "base": 1}
    for stage, ratio in ratios.items():
        stage_values = values(report, stage)
        assert stage_values["perplexity_ratio"] == pytest.approx(ratio)
        assert (stage_values["fdt_25"], stage_values["sdt"]) == (0, 1)


def test_a_worse_old_domain_fails() -> None:
    assert verdict(measured(finetuned=15.0, base=14.0)).passed
    [failure] = verdict(measured(finetuned=15.0, base=12.0)).failures
    assert (failure.metric, failure.value) == ("base.perplexity_ratio", 1.25)


def test_a_mix_can_be_limited_relative_to_its_experts() -> None:
    policy = POLICY.model_copy(
        update={
            "assembled": ParentLimits(max_perplexity_ratio_to_expert=1.3),
            "candidate": CandidateLimits(max_perplexity_ratio_to_expert=1.3),
        }
    )
    [failure] = verdict(measured(), policy).failures
    assert failure.metric == "assembled.perplexity_ratio_to_expert"


def test_default_limits_are_lowered_to_the_noise_floor() -> None:
    measurements = measured(STRAYS, reread=STRAYS)
    assert verdict(measurements, Policy(completion_tokens=24)).passed


def test_an_explicit_limit_beyond_the_noise_floor_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        verdict(measured(STRAYS, reread=STRAYS))
    [problem] = refused.value.problems
    assert problem.pointer == "/served/min_fdt_75"
    assert "is 6, but on law the reference against itself reaches 0" in problem.detail


def test_a_candidate_worse_than_the_seed_fails() -> None:
    report = verdict(measured(finetuned=20.5))
    assert [f.metric for f in report.failures] == ["candidate.perplexity_ratio_to_seed"]
    assert report.failures[0].value == pytest.approx(1.025)


def test_shifted_probabilities_fail_although_every_argmax_agrees() -> None:
    report = verdict(measured(Reading(TOKENS, (-0.2,) * 8)))
    assert [f.metric for f in report.failures] == [
        "served.dppl_ratio",
        "served.logprob_difference",
    ]


def test_other_served_logprobs_fail_although_every_argmax_agrees() -> None:
    other = Reading(TOKENS, (-0.1001, -0.0999, -0.1002, -0.0998) * 2)
    report = verdict(measured(other))
    assert [f.metric for f in report.failures] == ["served.logprob_difference"]


def test_logprobs_may_differ_by_twice_the_noise_floor() -> None:
    other = Reading(TOKENS, (-0.1001, -0.0999, -0.1002, -0.0998) * 2)
    report = verdict(measured(other, reread=Reading(TOKENS, (-0.10008,) * 8)))
    assert report.passed


def test_nan_from_the_server_fails() -> None:
    report = verdict(measured(Reading(TOKENS, (math.nan,) * 8)))
    assert not report.passed
    canonical_json(report.model_dump(mode="json"))


def test_without_a_finetune_the_assembled_mix_is_judged() -> None:
    perplexity = Perplexities(seed=20, experts={}, merge=22, assembled=16)
    assert perplexity.candidate == 16


def test_a_report_survives_json() -> None:
    report = verdict(measured(STRAYS))
    stored = canonical_json(report.model_dump(mode="json"))
    assert GateReport.model_validate_json(stored) == report


def test_an_unreachable_policy_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_fdt_75"):
        Policy(completion_tokens=8, served=ServedLimits(min_fdt_75=9))


def test_defaults_give_way_to_the_number_of_compared_tokens() -> None:
    assert verdict(measured(), Policy(completion_tokens=8)).passed


def test_the_report_names_checkpoints_and_documents_by_digest() -> None:
    report = verdict(measured())
    assert report.stages["served"] == SIDES
    assert report.domains[0].documents == "ef" * 32
    assert report.vector_instructions == cpu_features.vector_instructions()


def test_a_policy_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="max_typo"):
        Policy.model_validate({"max_typo": 1})


def test_what_was_not_judged_is_said_and_private_texts_are_not_quoted() -> None:
    private = replace(measured(STRAYS), is_private=True)
    report = judge(
        POLICY,
        manifest_digest="ab" * 32,
        stages=dict.fromkeys(("assembled", "candidate", *private.readings), SIDES),
        domains=[private],
        unjudged=["python", "bible"],
        decode=decode,
    )
    assert report.unjudged == ("python", "bible")
    assert report.about_unjudged == (
        "2 of 3 domains not judged, since their experts keep no documents: python, bible"
    )
    [domain] = report.domains
    assert not any(domain.examples.values())
    assert report.failures
    assert all(failure.first is None for failure in report.failures)
    assert verdict(measured()).about_unjudged == ""
