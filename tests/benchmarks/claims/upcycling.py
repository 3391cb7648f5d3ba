"""Initial upcycling: what a mix of all experts reaches after so many tokens, by method.

Routers alone are compared with what trains by default; the papers' own, which train everything by
the language model's loss, with one another.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from assembler.recipe import Preset
from registry.manifests import Manifest
from tests.benchmarks.claims import figures
from tests.benchmarks.claims.mixes import Mix, Mixes, NotMeasured

# By the default finetune, routers are told which domain a text is of: by the share of routing that
# goes past its expert, or by cross-entropy, which moves routers that know little.
PRESETS: Sequence[Preset] = ("nexus", "flexolmo", "linear", "mlp")
CROSS_ENTROPY: Mapping[str, Preset] = {f"{name}, by cross-entropy": name for name in PRESETS}
ROUTERS: Mapping[str, Preset] = {**{name: name for name in PRESETS}, **CROSS_ENTROPY}
# Of the papers: experts are added, everything trains, by the next token alone.
PAPER_FINETUNE: Mapping[str, Any] = {
    "train": "all",
    "domain_weight": 0.0,
    "load_balance_weight": 0.05,
    "learning_rate": 3e-4,
    "router_learning_rate": 3e-4,
}
PAPERS: Mapping[str, Preset] = {
    "paper's nexus": "nexus-paper",
    "paper's linear": "linear",
    "paper's mlp": "mlp",
}
PAPER_CHANGES: Mapping[str, Any] = {"combine": "sum"}


def mix_of(method: str, experts: Sequence[str], *, tokens: int, base: Mix | None = None) -> Mix:
    """By the name of a method above."""
    if method in ROUTERS:
        return Mix(
            experts=tuple(experts),
            preset=ROUTERS[method],
            tokens=tokens,
            finetune={"domain_loss_q": 0.0} if method in CROSS_ENTROPY else {},
            base=base,
        )
    return Mix(
        experts=tuple(experts),
        preset=PAPERS[method],
        changes=PAPER_CHANGES,
        tokens=tokens,
        finetune=PAPER_FINETUNE,
        base=base,
    )


def measure(
    mixes: Mixes,
    *,
    budgets: Sequence[int],
    paper_budgets: Sequence[int],
    asked: Sequence[str] = (*ROUTERS, *PAPERS),
) -> dict[str, Any]:
    """Of each method and budget, and of the dense networks; questions are asked of the methods
    `asked`. What is not measured yet, and is not to be, is left out."""
    experts, family = mixes.domains, mixes.family
    dense: dict[str, Mix | Manifest] = {
        "seed": family.seed,
        "merge": Mix(experts=experts, preset="merge"),
        **{f"expert {name}": manifest for name, manifest in family.experts.items()},
    }
    told: dict[str, Any] = {}
    for name, network in dense.items():
        with suppress(NotMeasured):
            told[name] = figures.of_network(mixes, network, experts, asks=True)
    told["right expert"] = figures.oracle(mixes, experts, asks=True)
    for method in (*ROUTERS, *PAPERS):
        told[method] = {}
        for tokens in budgets if method in ROUTERS else paper_budgets:
            if tokens == 0 and method in CROSS_ENTROPY:
                continue  # nothing is told yet
            mix = mix_of(method, experts, tokens=tokens)
            with suppress(NotMeasured):
                told[method][str(tokens)] = figures.of_mix(mixes, mix, asks=method in asked)
    return told
