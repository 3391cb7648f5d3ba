"""Experts whose attention moved too: what averaging costs, and what attention experts save.

Branch-Attend-Mix (arXiv 2408.08274) against Branch-Train-MiX at equal tokens and at equal compute,
and both against what needs no training.
"""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures

# Nothing trained.
ASSEMBLED: Mapping[str, Mapping[str, Any]] = {
    "nexus, attention averaged": {},
    "nexus, attention experts, gates of the projection": {"changes": {"attention": "experts"}},
    "nexus, attention experts with shared K/V, gates of the projection": {
        "changes": {"attention": "experts-shared-kv"}
    },
    "bam, gates at random": {"preset": "bam"},
    "btx, router at random": {"preset": "btx"},
}
# Everything trained by the next token, as the papers do.
TRAINED: Mapping[str, Mapping[str, Any]] = {
    "btx, top 1": {
        "preset": "btx",
        "changes": {"experts_per_token": 1, "norm_topk_prob": False},
    },
    "btx": {"preset": "btx"},
    "bam": {"preset": "bam"},
    "bam, shared K/V": {"preset": "bam-shared-kv"},
    "bam, shared K/V, attention top 1": {
        "preset": "bam-shared-kv",
        "changes": {"attention_experts_per_token": 1},
    },
    "bam, shared K/V, attention top 2": {
        "preset": "bam-shared-kv",
        "changes": {"attention_experts_per_token": 2},
    },
}
# The same for all: presets differ in it, and rates decide more at few tokens than methods do.
FINETUNE: Mapping[str, Any] = {
    "learning_rate": 3e-4,
    "router_learning_rate": 3e-4,
    "load_balance_weight": 0.01,
    "z_loss_weight": 0.001,
    "domain_weight": 0.0,
    "train": "all",
}
BASELINE = "btx, top 1"


def measure(mixes: Mixes, *, tokens: int) -> dict[str, Any]:
    """`equal compute` gives each method as many tokens as cost what the baseline's do, by the
    parameters that a token meets."""
    domains = mixes.domains
    merge = Mix(experts=domains, preset="merge")
    told: dict[str, Any] = {
        "seed": figures.of_network(mixes, mixes.family.seed, domains),
        "merge": figures.of_network(mixes, merge, domains),
        "right expert": figures.oracle(mixes, domains),
        "assembled": {
            name: figures.of_mix(mixes, Mix(experts=domains, **fields))
            for name, fields in ASSEMBLED.items()
        },
        "tokens": tokens,
    }
    active = {
        name: mixes.manifest(Mix(experts=domains, **fields)).architecture.num_active_parameters
        for name, fields in TRAINED.items()
    }
    budgets = {
        "equal data": dict.fromkeys(TRAINED, tokens),
        "equal compute": {
            name: round(tokens * active[BASELINE] / own) for name, own in active.items()
        },
    }
    for title, by_method in budgets.items():
        told[title] = {name: _trained(mixes, name, tokens=own) for name, own in by_method.items()}
    return told


def _trained(mixes: Mixes, name: str, *, tokens: int) -> dict[str, Any]:
    mix = Mix(experts=mixes.domains, tokens=tokens, finetune=FINETUNE, **TRAINED[name])
    return figures.of_mix(mixes, mix) | {"tokens": tokens}
