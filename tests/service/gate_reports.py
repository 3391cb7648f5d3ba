"""Gate reports with chosen perplexities."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.compression.int8_curve import Compression, Curve, Point
from engine.divergence import noise
from engine.divergence.metrics import Continuation, Reading
from engine.gates.general_gate import GeneralMeasurement
from engine.gates.mix_gate import (
    GateReport,
    Measurements,
    Sides,
    judge,
)
from engine.gates.perplexities import Perplexities, Routing
from engine.gates.policy import STAGES, Policy, ServedLimits, Stage

DOMAINS = ("sea", "law")
TOKENS = (1, 2, 3, 4)
AGREES, STRAYS = Reading(TOKENS, (-0.1,) * 4), Reading((1, 2, 9, 4), (-0.1,) * 4)
DIGEST = "ab" * 32
GENERAL = Perplexities(
    seed=15.0,
    experts={"sea": 18.0, "law": 16.0},
    merge=14.0,
    assembled=16.0,
    finetuned=15.5,
    base=16.5,
)
Values = tuple[float, ...]


def make_report(
    *,
    assembled: Values,
    finetuned: Values | None,
    base: Values | None = None,
    domains: Sequence[str] = DOMAINS,
    known: Sequence[str] = (),
    general: Perplexities | None = None,
    baselines: bool = True,
    routing: Mapping[str, Routing] | None = None,
) -> GateReport:
    """Return a report with these perplexities, one for each domain.

    The seed has 100 everywhere, an expert 25 in its domain and 110 elsewhere, the merge 60. Without
    `baselines` there are only seed and expert. `known` are the domains of the base, and `general`
    are the perplexities on general text. `routing` is by domain.
    """
    measured = []
    for position, domain in enumerate(domains):
        perplexity = Perplexities(
            seed=100.0,
            experts={
                other: 25.0 if other == domain else 110.0
                for other in domains
                if baselines or other == domain
            },
            merge=60.0 if baselines else None,
            assembled=assembled[position],
            finetuned=None if finetuned is None else finetuned[position],
            base=None if base is None else base[position],
        )
        own = _measured(domain, perplexity, known=domain in known)
        measured.append(replace(own, routing=(routing or {}).get(domain)))
    sides = Sides(candidate="m" * 64, against={"others": "o" * 64})
    stages = {stage for own in measured for stage in own.readings}
    return judge(
        Policy(),
        manifest_digest="m" * 64,
        stages={stage: sides for stage in STAGES if stage in stages},
        domains=measured,
        general=None
        if general is None
        else GeneralMeasurement(documents="g" * 64, perplexity=general),
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
        variations={noise.IN_ONE_PASS: [reading]},
        readings=readings,
    )


def make_curve() -> Curve:
    """Return the curve of a mix of 1 MB that must shrink by a tenth; it takes the second point."""
    points = [
        Point(
            units=tuple(map(str, range(number))),
            num_bytes=1_000_000 - 100_000 * number,
            int8_share=0.2 * number,
            fdt_75=32 - 8 * number,
            fdt_mean=32 - 9 * number,
            dppl=2 + 0.01 * number,
            perplexity=20 + 0.1 * number,
        )
        for number in range(3)
    ]
    return Curve(request=Compression(max_bytes=900_000), points=tuple(points))


def make_divergent_report() -> GateReport:
    """Return a report of two domains: the served model diverges in both, the base has one."""
    readings: dict[str, dict[Stage, list[Reading]]] = {
        "sea": {"served": [AGREES, STRAYS], "base": [STRAYS, STRAYS]},
        "law": {"served": [AGREES, STRAYS]},
    }
    measured = [
        Measurements(
            domain=domain,
            documents=DIGEST,
            perplexity=Perplexities(
                seed=20, experts={"sea": 12, "law": 12}, merge=18, assembled=15, base=14
            ),
            continuations=[Continuation((7, 8), TOKENS, (0.5, 0.5, 0.25, 0.5))] * 2,
            variations={noise.IN_ONE_PASS: [AGREES] * 2},
            readings=of_domain,
        )
        for domain, of_domain in readings.items()
    ]
    sides = Sides(candidate=DIGEST, against={"the version before": "cd" * 32})
    return judge(
        Policy(completion_tokens=4, served=ServedLimits(min_fdt_75=3)),
        manifest_digest=DIGEST,
        stages={"assembled": sides, "candidate": sides, "served": sides, "base": sides},
        domains=measured,
        decode=lambda tokens: " ".join(map(str, tokens)),
    )
