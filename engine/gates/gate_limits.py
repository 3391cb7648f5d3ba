"""Limits on the divergence of two models, and the metrics that are compared with them.

A candidate never fails for a divergence that the reference shows against itself, the noise floor. A
default limit that the floor misses is lowered to the floor. A limit set by the user that the floor
misses is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import ConfigDict, Field

from engine.divergence.aggregates import Summary
from engine.gates.report import Data, Limit, Metric
from registry.errors import Problem, pointer


class DivergenceLimits(Data):
    """Limits on how a model reads texts that another wrote; None: reported but not limited."""

    model_config = ConfigDict(allow_inf_nan=False)

    min_equal_share: float | None = Field(
        default=None, ge=0, le=1, description="Share of tokens that are predicted equally."
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
    min_whole_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        exclude_if=lambda share: share is None,
        description="Share of texts without a divergent token.",
    )
    max_sdt: float | None = Field(
        default=None, ge=0, description="Mean number of divergent tokens of a prefix."
    )
    max_dppl_ratio: float | None = Field(
        default=None,
        ge=1,
        description="The reader's perplexity on the text divided by the writer's.",
    )
    max_logprob_difference: float | None = Field(
        default=None,
        ge=0,
        description="Mean absolute difference of the tokens' log-probabilities, in nats.",
    )


# Unlike a count of tokens, this mean is continuous: it shows every last digit by which two engines
# differ. A limit lowered to the noise floor therefore allows twice the floor.
DIFFERENCE_SLACK = 2.0


@dataclass(frozen=True)
class _Measure:
    """The computation and the limit of one metric.

    `compute` takes a summary and the noise floor. Computed on the floor itself, it is the best
    value that can be reached.
    """

    limit: Limit
    compute: Callable[[Summary, Summary], float]
    slack: float = 1.0

    def field(self, metric: str) -> str:
        """Return the name of the metric's limit in the policy."""
        return f"{'min' if self.limit == 'at least' else 'max'}_{metric}"

    def allows(self, value: float, threshold: float) -> bool:
        """Return whether `value` is within `threshold`."""
        return value >= threshold if self.limit == "at least" else value <= threshold


_MEASURES: Mapping[str, _Measure] = {
    "equal_share": _Measure("at least", lambda summary, _: summary.equal_share),
    "fdt_25": _Measure("at least", lambda summary, _: summary.fdt.p25),
    "fdt_50": _Measure("at least", lambda summary, _: summary.fdt.p50),
    "fdt_75": _Measure("at least", lambda summary, _: summary.fdt.p75),
    "whole_share": _Measure("at least", lambda summary, _: _whole_share(summary)),
    "sdt": _Measure("at most", lambda summary, _: summary.sdt.mean),
    "dppl_ratio": _Measure("at most", lambda summary, floor: summary.perplexity / floor.perplexity),
    "logprob_difference": _Measure(
        "at most", lambda summary, _: _logprob_difference(summary), slack=DIFFERENCE_SLACK
    ),
}
# Limits in tokens, which cannot exceed the number of compared tokens.
_COUNTED = ("min_fdt_25", "min_fdt_50", "min_fdt_75", "max_sdt")


def _logprob_difference(summary: Summary) -> float:
    """Return the mean difference of log-probabilities in nats."""
    # Only a summary without a reference reading lacks the difference, and every gate has one.
    assert summary.logprob_difference is not None
    return summary.logprob_difference


def _whole_share(summary: Summary) -> float:
    """Return the share of whole texts."""
    # Only a summary that was stored before there was this share lacks it.
    assert summary.whole_share is not None
    return summary.whole_share


def metrics(limits: DivergenceLimits, summary: Summary, floor: Summary) -> Iterator[Metric]:
    """Yield every metric of `summary` with its limit, which the noise floor may lower."""
    for name, measure in _MEASURES.items():
        threshold = getattr(limits, measure.field(name))
        reachable = measure.slack * measure.compute(floor, floor)
        if threshold is not None and not measure.allows(reachable, threshold):
            threshold = reachable
        value = measure.compute(summary, floor)
        yield Metric(metric=name, value=value, limit=measure.limit, threshold=threshold)


def unreachable_limits(
    limits: DivergenceLimits, floors: Mapping[str, Summary], *, at: tuple[str, ...] = ()
) -> Iterator[Problem]:
    """Yield a problem for each explicit limit that the reference itself does not reach.

    `floors` are the reference's noise floors by domain. `at` is the path of the limits in the
    policy.
    """
    for name, measure in _MEASURES.items():
        field = measure.field(name)
        requested = getattr(limits, field)
        if requested is None or requested == _default(limits, field):
            continue
        for domain, floor in floors.items():
            reachable = measure.compute(floor, floor)
            if not measure.allows(reachable, requested):
                detail = (
                    f"is {requested:.4g}, but on {domain} the reference against itself reaches"
                    f" {reachable:.4g}: ask for"
                    f" {'at most' if measure.limit == 'at least' else 'at least'} that"
                )
                yield Problem(pointer(*at, field), detail)


def check_reachable(limits: DivergenceLimits, *, completion_tokens: int, at: str = "") -> None:
    """Raise ValueError for limits in tokens that exceed the number of compared tokens.

    Defaults are not refused: the noise floor is at most that number, and they give way to it. `at`
    is put before the field's name in the message.
    """
    for field in _COUNTED:
        value = getattr(limits, field)
        if value is None or value == _default(limits, field):
            continue
        if value > completion_tokens:
            raise ValueError(
                f"{at}{field} is {value:g}, but only {completion_tokens} tokens are compared;"
                f" raise completion_tokens or lower {at}{field}"
            )


def _default(limits: DivergenceLimits, field: str) -> float | None:
    """Return the default of a limit in its stage."""
    default: float | None = type(limits).model_fields[field].get_default(call_default_factory=True)
    return default
