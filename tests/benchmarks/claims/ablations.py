"""Measure ablations: the default with one changed field, before and after the finetune."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from assembler.recipes import presets
from assembler.recipes.recipe import ProjectionTraining
from tests.benchmarks.claims import encoder_ridge
from tests.benchmarks.claims.mixes import Mix, Mixes, NotMeasured
from tests.benchmarks.claims.page import figures

DEFAULT, EXPERTS = "default", "train experts, not attention"
CROSS_ENTROPY = "domain loss by cross-entropy (q 0)"
BY_SHARE = "domain loss by the share that goes astray (q 1)"
GENERALIZED = "domain loss near cross-entropy (q 0.25)"

# Ablations of a mix before any training.
ASSEMBLED: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    "sum instead of convex": {"changes": {"combine": "sum"}},
    "two experts for each token": {"changes": {"experts_per_token": 2}},
    "seed routed, not shared": {"changes": {"combine": "sum", "shared_expert": False}},
    "not centered": {"changes": {"center_embeddings": False}},
    "the seed's router inputs": {"reads": "seed"},
    "256 tokens of each domain": {"domain_tokens": 256},
    "1,024 tokens of each domain": {"domain_tokens": 1024},
    "8,192 tokens of each domain": {"domain_tokens": 8192},
    "without the experts' own covariance": {"training": ProjectionTraining(own_weight=0)},
    "logit spread 0.5": {"training": ProjectionTraining(logit_spread=0.5)},
    "logit spread 1.5": {"training": ProjectionTraining(logit_spread=1.5)},
    "logit spread 3": {"training": ProjectionTraining(logit_spread=3)},
    "logit spread 6": {"training": ProjectionTraining(logit_spread=6)},
    "projection of the experts' documents too": {"learned": True},
}
# Ablations of the finetune. Routers train at `ROUTER_RATE`, all other tensors at `RATE`.
FINETUNE = presets.finetune("nexus", num_experts=1)
RATE, ROUTER_RATE = FINETUNE.learning_rate, FINETUNE.router_learning_rate
FINETUNED: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    "routers at a third of the rate": {"finetune": {"router_learning_rate": ROUTER_RATE / 3}},
    "routers at three times the rate": {"finetune": {"router_learning_rate": ROUTER_RATE * 3}},
    "one sequence for each step": {"finetune": {"batch_size": 1}},
    "eight sequences for each step": {"finetune": {"batch_size": 8}},
    "no domain labels": {"finetune": {"domain_weight": 0.0}},
    "a third of the domain weight": {"finetune": {"domain_weight": 1 / 3}},
    "three times the domain weight": {"finetune": {"domain_weight": 3.0}},
    CROSS_ENTROPY: {"finetune": {"domain_loss_q": 0.0}},
    GENERALIZED: {"finetune": {"domain_loss_q": 0.25}},
    "domain loss halfway (q 0.5)": {"finetune": {"domain_loss_q": 0.5}},
    BY_SHARE: {"finetune": {"domain_loss_q": 1.0}},
    "load balance 0.01": {"finetune": {"load_balance_weight": 0.01}},
    "load balance 0.05": {"finetune": {"load_balance_weight": 0.05}},
    "no labels, load balance 0.05": {
        "finetune": {"domain_weight": 0.0, "load_balance_weight": 0.05}
    },
    "train routers alone": {"finetune": {"train": "router"}},
    "all but routers at three times the rate": {"finetune": {"learning_rate": RATE * 3}},
    "train the shared expert, not attention": {"finetune": {"train": "shared"}},
    EXPERTS: {"finetune": {"train": "experts"}},
    "train all": {"finetune": {"train": "all"}},
    "train all, at ten times the rate": {"finetune": {"train": "all", "learning_rate": RATE * 10}},
    "two experts for each token": {"changes": {"experts_per_token": 2}},
    "sum instead of convex": {"changes": {"combine": "sum"}},
    "seed routed, not shared": {"changes": {"combine": "sum", "shared_expert": False}},
}
# The ablations that are worth their training time on a large family.
BRIEF = (
    DEFAULT,
    "train routers alone",
    EXPERTS,
    "train all",
    "all but routers at three times the rate",
    "no domain labels",
    CROSS_ENTROPY,
    GENERALIZED,
)


def measure(
    mixes: Mixes, *, tokens: int, finetuned: Sequence[str] = tuple(FINETUNED)
) -> dict[str, Any]:
    """Measure all variants without training, and the `finetuned` ones with `tokens` of finetune.

    The result leaves out a variant that raises NotMeasured.
    """
    plain = Mix(experts=mixes.domains)
    assembled: dict[str, Any] = {}
    with suppress(NotMeasured):
        ridge = encoder_ridge.mix(mixes)
        assembled["rows by a text encoder's vectors"] = figures.of_network(
            mixes, ridge, mixes.domains
        )
    assembled |= _each(mixes, {n: replace(plain, **fields) for n, fields in ASSEMBLED.items()})
    tuned = {name: replace(plain, tokens=tokens, **FINETUNED[name]) for name in finetuned}
    return {"assembled": assembled, "finetuned": _each(mixes, tuned), "tokens": tokens}


def _each(mixes: Mixes, variants: Mapping[str, Mix]) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for name, mix in variants.items():
        with suppress(NotMeasured):
            measured[name] = figures.of_mix(mixes, mix)
    return measured
