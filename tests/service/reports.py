"""Gate reports with chosen perplexities."""

from engine.divergence import Continuation, Reading
from engine.gates import GateReport, Measurements, Perplexities, Policy, judge

DOMAINS = ("sea", "law")


def make_report(
    *, assembled: tuple[float, float], finetuned: tuple[float, float] | None
) -> GateReport:
    """Two domains; the seed has 100 everywhere, each expert 25 at home, the merge 60."""
    domains = []
    for position, domain in enumerate(DOMAINS):
        perplexity = Perplexities(
            seed=100.0,
            experts={other: 25.0 if other == domain else 110.0 for other in DOMAINS},
            merge=60.0,
            assembled=assembled[position],
            finetuned=None if finetuned is None else finetuned[position],
        )
        domains.append(_measured(domain, perplexity))
    return judge(Policy(), manifest_digest="m" * 64, domains=domains, decode=str)


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
