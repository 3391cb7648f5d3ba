"""Measure initial upcycling: a mix of all experts, by method and tokens of finetune.

Router types are compared with the default finetune. The methods of the papers train everything by
the loss of the language model; they are compared with one another.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from assembler.recipes.recipe import Preset
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.claims import text_classifier
from tests.benchmarks.claims.mixes import Mix, Mixes, NotMeasured
from tests.benchmarks.claims.page import figures

# The default finetune teaches routers the domain of a text. Its loss is the share of routing to
# other experts where routers start right, else cross-entropy. This experiment tries both losses.
PRESETS: Sequence[Preset] = ("nexus", "flexolmo", "linear", "mlp")
LOSSES: Mapping[str, float] = {"by the share": 1.0, "by cross-entropy": 0.0}
# The preset and the q of each method that names its loss.
NAMED_LOSSES: Mapping[str, tuple[Preset, float]] = {
    f"{name}, {loss}": (name, q) for loss, q in LOSSES.items() for name in PRESETS
}
ROUTERS: Mapping[str, Mapping[str, Any]] = {
    **{name: {"preset": name} for name in PRESETS},
    **{
        name: {"preset": preset, "finetune": {"domain_loss_q": q}}
        for name, (preset, q) in NAMED_LOSSES.items()
    },
}
# The papers add the outputs of experts, and train everything by the next token alone.
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
# Rivals that train nothing. DUME (arXiv 2603.29765) gives the expert of the largest logit the whole
# weight. With rows of this length the softmax before the choice does the same.
HARD = 1000.0
DUME: Mapping[str, Any] = {"router_init": "dume", "router_extension": "reset"}
RIVALS: Mapping[str, Mapping[str, Any]] = {
    "dume": {"preset": "linear", "changes": {**DUME, "router_scale": HARD}},
    "dume, convex": {"preset": "linear", "changes": DUME},
}
CLASSIFIER = "text classifier"
METHODS = {**ROUTERS, **RIVALS, **PAPERS}


def mix_of(method: str, experts: Sequence[str], *, tokens: int, base: Mix | None = None) -> Mix:
    """Return the mix of a method of `METHODS`."""
    return Mix(experts=tuple(experts), tokens=tokens, base=base, **METHODS[method])


def is_default(mixes: Mixes, method: str, experts: Sequence[str], *, tokens: int) -> bool:
    """Return whether the named loss is the one that the preset chooses itself."""
    if method not in NAMED_LOSSES or tokens == 0:
        return method in NAMED_LOSSES
    preset, q = NAMED_LOSSES[method]
    return mixes.domain_loss_q(mix_of(preset, experts, tokens=tokens)) == q


def measure(
    mixes: Mixes,
    *,
    budgets: Sequence[int],
    paper_budgets: Sequence[int],
    questioned: Sequence[str] = tuple(METHODS),
) -> dict[str, Any]:
    """Measure each method and budget, and the dense networks.

    Only the methods `questioned` answer questions. The result leaves out what raises NotMeasured.
    """
    experts, family = mixes.domains, mixes.family
    dense: dict[str, Mix | Manifest] = {
        "seed": family.seed,
        "merge": Mix(experts=experts, preset="merge"),
    }
    measured: dict[str, Any] = {}
    for name, network in dense.items():
        with suppress(NotMeasured):
            measured[name] = figures.of_network(mixes, network, experts, asks=True)
    for name, expert in family.experts.items():
        measured[f"expert {name}"] = figures.of_network(mixes, expert, experts)
    measured["right expert"] = figures.oracle(mixes, experts, asks=True)
    with suppress(NotMeasured):
        measured[CLASSIFIER] = text_classifier.measure(mixes, experts)
    for method in METHODS:
        measured[method] = {}
        for tokens in _budgets(method, budgets=budgets, paper_budgets=paper_budgets):
            with suppress(NotMeasured):
                if is_default(mixes, method, experts, tokens=tokens):
                    continue
                mix = mix_of(method, experts, tokens=tokens)
                measured[method][str(tokens)] = figures.of_mix(
                    mixes, mix, asks=method in questioned
                )
    return measured


def _budgets(method: str, *, budgets: Sequence[int], paper_budgets: Sequence[int]) -> Sequence[int]:
    if method in RIVALS:
        return (0,)
    return budgets if method in ROUTERS else paper_budgets
