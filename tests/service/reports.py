"""Gate reports with chosen perplexities."""

from collections.abc import Sequence

from engine.divergence.metrics import Continuation, Reading
from engine.gates import GateReport, Measurements, Perplexities, Policy, judge

DOMAINS = ("sea", "law")
Values = tuple[float, ...]


def make_report(
    *,
    assembled: Values,
    finetuned: Values | None,
    base: Values | None = None,
    domains: Sequence[str] = DOMAINS,
) -> GateReport:
    """Of each domain a value; the seed has 100 everywhere, each expert 25 at home, the merge 60."""
    measured = []
    for position, domain in enumerate(domains):
        perplexity = Perplexities(
            seed=100.0,
            experts={other: 25.0 if other == domain else 110.0 for other in domains},
            merge=60.0,
            assembled=assembled[position],
            finetuned=None if finetuned is None else finetuned[position],
            base=None if base is None else base[position],
        )
        measured.append(_measured(domain, perplexity))
    return judge(Policy(), manifest_digest="m" * 64, domains=measured, decode=str)


def _measured(domain: str, perplexity: Perplexities) -> Measurements:
    tokens = tuple(range(32))
    reading = Reading(tokens, (-0.5,) * len(tokens))
    return Measurements(
        domain=domain,
        perplexity=perplexity,
        continuations=[Continuation((1, 2), tokens)],
        reread=[reading],
        served=[reading],
    )
