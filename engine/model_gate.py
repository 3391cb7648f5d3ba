"""The gate between any two models: is a candidate kept as near to its reference as is asked?

All readings come in from outside, so judging needs neither torch nor a model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.divergence import noise
from engine.divergence.aggregates import Summary, summarise
from engine.divergence.metrics import Continuation, Reading, first_divergence
from engine.gates import (
    CONTEXT_TOKENS,
    Data,
    Decode,
    Failure,
    Limit,
    Reach,
    refuse_beyond,
    software_versions,
)

MAX_EXAMPLES = 5
# Of the compared tokens, where no threshold of the 75th percentile is given; as the gate of a mix.
DEFAULT_FDT_SHARE = 0.75

REACHES: Mapping[str, Reach] = {
    "min_equal_share": lambda floor: floor.equal_share,
    "min_fdt_75": lambda floor: floor.fdt.p75,
    "max_sdt": lambda floor: floor.sdt.mean,
}


class ModelPolicy(Data):
    """How much is compared, and what a candidate must keep in every domain.

    Lengths are those of the paper (section 4.1: prefixes and completions of 100 tokens). A default
    gives way to the noise floor, a threshold of one's own that asks for more is refused.
    """

    prompts_per_domain: int = Field(default=64, ge=1, description="Held-out prefixes per domain.")
    prefix_tokens: int = Field(default=100, ge=1, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=100, ge=1, description="Tokens the reference adds greedily to each prefix."
    )
    min_equal_share: float = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the candidate predicts alike."
    )
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token; three quarters of the"
        " completion if not given.",
    )
    max_sdt: float | None = Field(
        default=None, ge=0, description="Mean divergent tokens of a prefix; not asked if not given."
    )
    max_dppl_ratio: float = Field(
        default=1.01,
        ge=1,
        description="Candidate's perplexity on the reference's text, over the reference's own.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        for field in ("min_fdt_75", "max_sdt"):
            value = getattr(self, field)
            if value is not None and value > self.completion_tokens:
                raise ValueError(
                    f"{field} is {value:g}, but only {self.completion_tokens} tokens are compared;"
                    " raise completion_tokens or lower it"
                )
        return self

    @property
    def fdt_75(self) -> float:
        if self.min_fdt_75 is None:
            return DEFAULT_FDT_SHARE * self.completion_tokens
        return self.min_fdt_75


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Raw numbers of one domain; every reading is of `continuations`, in their order.

    `varied` are the reference's own readings, by what was varied; the worst of them is the floor.
    """

    domain: str
    continuations: Sequence[Continuation]
    varied: noise.Variations
    candidate: Sequence[Reading]


class Divergent(Data):
    """Where the candidate first left a text of the reference.

    `margin`: by how much, in nats, the reference preferred its own token to the runner-up. Near
    zero it hardly mattered.
    """

    prompt: int = Field(description="Index of the prefix in its domain.")
    position: int = Field(description="First divergent token, counted from the prefix's end.")
    margin: float | None
    context: str
    reference_token: int
    reference_text: str
    candidate_token: int
    candidate_text: str


class DomainDivergence(Data):
    domain: str
    candidate: Summary
    noise_floor: Summary
    variations: dict[str, Summary] = Field(
        description="The reference against itself, by what was varied; the floor is their worst."
    )
    examples: tuple[Divergent, ...] = Field(description="Where the reference was surest, first.")


class DivergenceReport(Data):
    schema_version: Literal[1] = 1
    reference: str
    candidate: str
    policy: ModelPolicy
    versions: dict[str, str]
    passed: bool
    failures: tuple[Failure, ...]
    domains: tuple[DomainDivergence, ...]


def check_floor(
    policy: ModelPolicy,
    continuations: Sequence[Continuation],
    varied: noise.Variations,
    *,
    domain: str,
) -> None:
    """Before a candidate is read. Raises InvalidInput as `gates.refuse_beyond`."""
    floor = summarise(continuations, noise.floor(continuations, varied))
    refuse_beyond(policy, {domain: floor}, REACHES)


def judge(
    policy: ModelPolicy,
    *,
    reference: str,
    candidate: str,
    domains: Sequence[Compared],
    decode: Decode,
) -> DivergenceReport:
    """Hold every domain against the policy. `decode` turns token ids into text for the examples.

    Raises InvalidInput as `gates.refuse_beyond`.
    """
    assert domains
    reports = tuple(_report(compared, decode) for compared in domains)
    refuse_beyond(policy, {report.domain: report.noise_floor for report in reports}, REACHES)
    failures = tuple(failure for report in reports for failure in _failures(policy, report))
    return DivergenceReport(
        reference=reference,
        candidate=candidate,
        policy=policy,
        versions=software_versions(),
        passed=not failures,
        failures=failures,
        domains=reports,
    )


def _report(compared: Compared, decode: Decode) -> DomainDivergence:
    texts = compared.continuations
    return DomainDivergence(
        domain=compared.domain,
        candidate=summarise(texts, compared.candidate),
        noise_floor=summarise(texts, noise.floor(texts, compared.varied)),
        variations={name: summarise(texts, own) for name, own in compared.varied.items()},
        examples=tuple(_examples(texts, compared.candidate, decode)),
    )


def _examples(
    continuations: Sequence[Continuation], readings: Sequence[Reading], decode: Decode
) -> Iterator[Divergent]:
    places = []
    for prompt, (text, reading) in enumerate(zip(continuations, readings, strict=True)):
        position = first_divergence(text.tokens, reading.predicted)
        if position < len(text.tokens):
            margin = text.margins[position] if text.margins else None
            places.append((margin, position, prompt))
    places.sort(key=lambda place: (-(place[0] or 0.0), place[1], place[2]))
    for margin, position, prompt in places[:MAX_EXAMPLES]:
        text, predicted = continuations[prompt], readings[prompt].predicted
        own, other = text.tokens[position], predicted[position]
        yield Divergent(
            prompt=prompt,
            position=position,
            margin=margin,
            context=decode((text.prefix + text.tokens[:position])[-CONTEXT_TOKENS:]),
            reference_token=own,
            reference_text=decode([own]),
            candidate_token=other,
            candidate_text=decode([other]),
        )


def _failures(policy: ModelPolicy, report: DomainDivergence) -> Iterator[Failure]:
    candidate, floor = report.candidate, report.noise_floor
    asked: list[tuple[str, float, Limit, float]] = [
        (
            "equal_share",
            candidate.equal_share,
            "at least",
            min(policy.min_equal_share, floor.equal_share),
        ),
        ("fdt_75", candidate.fdt.p75, "at least", min(policy.fdt_75, floor.fdt.p75)),
        (
            "dppl_ratio",
            candidate.perplexity / floor.perplexity,
            "at most",
            policy.max_dppl_ratio,
        ),
    ]
    if policy.max_sdt is not None:
        asked.append(("sdt", candidate.sdt.mean, "at most", policy.max_sdt))
    for metric, value, limit, threshold in asked:
        # Asked so that a NaN fails.
        kept = value >= threshold if limit == "at least" else value <= threshold
        if not kept:
            yield Failure(
                domain=report.domain, metric=metric, value=value, limit=limit, threshold=threshold
            )
