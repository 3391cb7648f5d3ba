"""Initial upcycling: what a mix of all experts reaches after so many tokens, by method.

Routers alone are compared with what trains by default; the papers' own, which train everything by
the language model's loss, with one another.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from assembler.recipes.recipe import Preset
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims.mixes import Mix, Mixes, NotMeasured
from tests.benchmarks.claims.page import figures

# By the default finetune, routers are told which domain a text is of: by the share of routing that
# goes past its expert where they start right, else by cross-entropy. Both are tried.
PRESETS: Sequence[Preset] = ("nexus", "flexolmo", "linear", "mlp")
LOSSES: Mapping[str, float] = {"by the share": 1.0, "by cross-entropy": 0.0}
# The preset and the q of what names its loss.
TOLD: Mapping[str, tuple[Preset, float]] = {
    f"{name}, {loss}": (name, q) for loss, q in LOSSES.items() for name in PRESETS
}
ROUTERS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"preset": name} for name in PRESETS},
    **{n: {"preset": own, "finetune": {"domain_loss_q": q}} for n, (own, q) in TOLD.items()},
}
# Of the papers: experts are added, everything trains, by the next token alone.
PAPER: Mapping[str, Any] = {
    "changes": {"combine": "sum"},
    "finetune": {
        "train": "all",
        "domain_weight": 0.0,
        "load_balance_weight": 0.05,
        "learning_rate": 3e-4,
        "router_learning_rate": 3e-4,
    },
}
PAPERS: Mapping[str, Mapping[str, Any]] = {
    "paper's nexus": {"preset": "nexus-paper", **PAPER},
    "paper's linear": {"preset": "linear", **PAPER},
    "paper's mlp": {"preset": "mlp", **PAPER},
}
METHODS = {**ROUTERS, **PAPERS}


def mix_of(method: str, experts: Sequence[str], *, tokens: int, base: Mix | None = None) -> Mix:
    """By the name of a method above."""
    return Mix(experts=tuple(experts), tokens=tokens, base=base, **METHODS[method])


def is_default(mixes: Mixes, method: str, experts: Sequence[str], *, tokens: int) -> bool:
    """Whether a method that names a loss comes to what its preset does by itself."""
    if method not in TOLD or tokens == 0:
        return method in TOLD
    preset, q = TOLD[method]
    return mixes.domain_loss_q(mix_of(preset, experts, tokens=tokens)) == q


def measure(
    mixes: Mixes,
    *,
    budgets: Sequence[int],
    paper_budgets: Sequence[int],
    asked: Sequence[str] = tuple(METHODS),
) -> dict[str, Any]:
    """Of each method and budget, and of the dense networks; questions are asked of the methods
    `asked`. What is not measured yet, and is not to be, is left out."""
    experts, family = mixes.domains, mixes.family
    dense: dict[str, Mix | Manifest] = {
        "seed": family.seed,
        "merge": Mix(experts=experts, preset="merge"),
    }
    told: dict[str, Any] = {}
    for name, network in dense.items():
        with suppress(NotMeasured):
            told[name] = figures.of_network(mixes, network, experts, asks=True)
    for name, expert in family.experts.items():
        told[f"expert {name}"] = figures.of_network(mixes, expert, experts)
    told["right expert"] = figures.oracle(mixes, experts, asks=True)
    for method in METHODS:
        told[method] = {}
        for tokens in budgets if method in ROUTERS else paper_budgets:
            with suppress(NotMeasured):
                if is_default(mixes, method, experts, tokens=tokens):
                    continue
                mix = mix_of(method, experts, tokens=tokens)
                told[method][str(tokens)] = figures.of_mix(mixes, mix, asks=method in asked)
    return told
