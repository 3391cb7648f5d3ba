"""What passes the gate, what does not, and what the report then says."""

import math
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from engine.divergence.metrics import Continuation, Reading
from engine.gates import GateReport, Measurements, Perplexities, Policy, judge
from registry.errors import InvalidInput
from registry.manifests import canonical_json

POLICY = Policy(completion_tokens=8, min_fdt_75=6)
TOKENS = (1, 2, 3, 4, 5, 6, 7, 8)
AGREES = Reading(TOKENS, (-0.1,) * 8)
STRAYS = Reading((9, *TOKENS[1:]), (-0.1,) * 8)


def decode(tokens: Sequence[int]) -> str:
    return " ".join(str(token) for token in tokens)


def measured(
    served: Reading = AGREES, *, reread: Reading = AGREES, finetuned: float = 15.0
) -> Measurements:
    num_prompts = 4
    return Measurements(
        domain="law",
        perplexity=Perplexities(
            seed=20,
            experts={"law": 12.0, "bible": 30.0},
            merge=22,
            assembled=16,
            finetuned=finetuned,
        ),
        continuations=[Continuation((100, 101), TOKENS)] * num_prompts,
        reread=[reread] * num_prompts,
        served=[served] * num_prompts,
        assembled=[AGREES] * num_prompts,
    )


def verdict(measurements: Measurements) -> GateReport:
    return judge(POLICY, manifest_digest="ab" * 32, domains=[measurements], decode=decode)


def test_an_equal_and_better_candidate_passes() -> None:
    report = verdict(measured())
    assert report.passed
    assert report.failures == ()
    assert report.domains[0].served.equal_share == 1
    assert "torch" in report.versions


def test_divergence_fails_and_names_its_place() -> None:
    report = verdict(measured(STRAYS))
    assert not report.passed
    assert [f.metric for f in report.failures] == ["served_equals_reference", "fdt_75"]
    assert str(report.failures[1]) == "law: fdt_75 is 0, at least 6 is required"
    example = report.domains[0].examples[0]
    assert (example.position, example.context) == (0, "100 101")
    assert (example.reference_text, example.served_text) == ("1", "9")


def test_defaults_give_way_to_what_the_reference_does_to_itself() -> None:
    strays = measured(STRAYS, reread=STRAYS)
    policy = Policy(completion_tokens=24)
    assert judge(policy, manifest_digest="ab" * 32, domains=[strays], decode=decode).passed


def test_a_threshold_of_ones_own_beyond_the_noise_floor_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        verdict(measured(STRAYS, reread=STRAYS))
    [problem] = refused.value.problems
    assert problem.pointer == "/min_fdt_75"
    assert "is 6, but on law the reference against itself reaches 0" in problem.detail


def test_a_candidate_worse_than_the_seed_fails() -> None:
    report = verdict(measured(finetuned=25.0))
    assert [f.metric for f in report.failures] == ["perplexity_ratio_to_seed"]
    assert report.failures[0].value == pytest.approx(1.25)


def test_shifted_probabilities_fail_although_every_argmax_agrees() -> None:
    report = verdict(measured(Reading(TOKENS, (-0.2,) * 8)))
    assert [f.metric for f in report.failures] == ["dppl_ratio"]


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
        Policy(completion_tokens=8)


def test_a_policy_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="max_typo"):
        Policy.model_validate({"max_typo": 1})
