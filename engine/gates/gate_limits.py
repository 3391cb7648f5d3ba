"""How alike two models must be, by divergent tokens: limits, and what is held against them.

What the reference shows against itself, the noise floor, is never held against a candidate: a
default gives way to it, a threshold of one's own that asks for more is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from engine.divergence.aggregates import Summary
from engine.gates.report import Data, Limit, Metric
from registry.errors import Problem, pointer


class Likeness(Data):
    """Limits of what a reader makes of texts; None: told and not limited."""

    min_equal_share: float | None = Field(
        default=None, ge=0, le=1, description="Share of tokens that are predicted alike."
    )
    min_fdt_25: float | None = Field(
        default=None, ge=0, description="25th percentile of the first divergent token."
    )
    min_fdt_50: float | None = Field(
        default=None, ge=0, description="Median of the first divergent token."
    )
    min_fdt_75: float | None = Field(
        default=None, ge=0, description="75th percentile of the first divergent token."
    )
    max_sdt: float | None = Field(
        default=None, ge=0, description="Mean number of divergent tokens of a prefix."
    )
    max_dppl_ratio: float | None = Field(
        default=None,
        ge=1,
        description="The reader's perplexity on the text, over that of who wrote it.",
    )
    max_logprob_difference: float | None = Field(
        default=None,
        ge=0,
        description="By how much, in nats, the log-probabilities of tokens differ on average.",
    )


# A mean over all tokens has no steps that hide how one engine's last digits differ from another's:
# a limit that gives way leaves as much room again as the noise floor takes.
DIFFERENCE_SLACK = 2.0


@dataclass(frozen=True)
class _Measure:
    """`of` takes a summary and the noise floor; of the floor itself it is what can be reached."""

    limit: Limit
    of: Callable[[Summary, Summary], float]
    slack: float = 1.0

    def field(self, metric: str) -> str:
        return f"{'min' if self.limit == 'at least' else 'max'}_{metric}"

    def allows(self, value: float, threshold: float) -> bool:
        return value >= threshold if self.limit == "at least" else value <= threshold


_MEASURES: Mapping[str, _Measure] = {
    "equal_share": _Measure("at least", lambda own, _: own.equal_share),
    "fdt_25": _Measure("at least", lambda own, _: own.fdt.p25),
    "fdt_50": _Measure("at least", lambda own, _: own.fdt.p50),
    "fdt_75": _Measure("at least", lambda own, _: own.fdt.p75),
    "sdt": _Measure("at most", lambda own, _: own.sdt.mean),
    "dppl_ratio": _Measure("at most", lambda own, floor: own.perplexity / floor.perplexity),
    "logprob_difference": _Measure(
        "at most", lambda own, _: _logprob_difference(own), slack=DIFFERENCE_SLACK
    ),
}
# In tokens: never more than are compared.
_COUNTED = ("min_fdt_25", "min_fdt_50", "min_fdt_75", "max_sdt")


def _logprob_difference(summary: Summary) -> float:
    # Only a summary without a reference has none, and no gate makes one.
    assert summary.logprob_difference is not None
    return summary.logprob_difference


def metrics(limits: Likeness, summary: Summary, floor: Summary) -> Iterator[Metric]:
    """Every number, and the limit that it is held against, which gives way to the noise floor."""
    for name, measure in _MEASURES.items():
        threshold = getattr(limits, measure.field(name))
        reached = measure.slack * measure.of(floor, floor)
        if threshold is not None and not measure.allows(reached, threshold):
            threshold = reached
        value = measure.of(summary, floor)
        yield Metric(metric=name, value=value, limit=measure.limit, threshold=threshold)


def beyond(
    limits: Likeness, floors: Mapping[str, Summary], *, at: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """Thresholds that differ from their default and that the reference itself does not keep.

    `floors` is its noise floor, by domain; the limits stand at `at` in the policy.
    """
    for name, measure in _MEASURES.items():
        field = measure.field(name)
        wanted = getattr(limits, field)
        default = type(limits).model_fields[field].get_default(call_default_factory=True)
        if wanted is None or wanted == default:
            continue
        for domain, floor in floors.items():
            reached = measure.of(floor, floor)
            if not measure.allows(reached, wanted):
                detail = (
                    f"is {wanted:.4g}, but on {domain} the reference against itself reaches"
                    f" {reached:.4g}: ask for"
                    f" {'at most' if measure.limit == 'at least' else 'at least'} that"
                )
                yield Problem(pointer(*at, field), detail)


def check_reachable(limits: Likeness, *, completion_tokens: int, at: str = "") -> None:
    """Raises ValueError for limits in tokens beyond those that are compared."""
    for field in _COUNTED:
        value = getattr(limits, field)
        if value is not None and value > completion_tokens:
            raise ValueError(
                f"{at}{field} is {value:g}, but only {completion_tokens} tokens are compared;"
                f" raise completion_tokens or lower {at}{field}"
            )
