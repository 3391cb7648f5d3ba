"""Gate reports with chosen perplexities."""

from collections.abc import Sequence

from engine.divergence.metrics import Continuation, Reading
from engine.gates import GateReport, Measurements, Perplexities, Sides, judge
from engine.policies import STAGES, Policy, Stage

DOMAINS = ("sea", "law")
Values = tuple[float, ...]


def make_report(
    *,
    assembled: Values,
    finetuned: Values | None,
    base: Values | None = None,
    domains: Sequence[str] = DOMAINS,
    known: Sequence[str] = (),
) -> GateReport:
    """Of each domain a value; the seed has 100 everywhere, each expert 25 at home, the merge 60.

    `known` are the domains of the version before.
    """
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
        measured.append(_measured(domain, perplexity, known=domain in known))
    sides = Sides(candidate="m" * 64, against={"others": "o" * 64})
    stages = {stage for own in measured for stage in own.readings}
    return judge(
        Policy(),
        manifest_digest="m" * 64,
        stages={stage: sides for stage in STAGES if stage in stages},
        domains=measured,
        decode=str,
    )


def _measured(domain: str, perplexity: Perplexities, *, known: bool) -> Measurements:
    tokens = tuple(range(32))
    reading = Reading(tokens, (-0.5,) * len(tokens))
    readings: dict[Stage, list[Reading]] = {"served": [reading]}
    if perplexity.finetuned is not None:
        readings["finetuned"] = [reading]
    if known:
        readings["base"] = [reading]
    return Measurements(
        domain=domain,
        documents="d" * 64,
        perplexity=perplexity,
        continuations=[Continuation((1, 2), tokens)],
        reread=[reading],
        readings=readings,
    )
