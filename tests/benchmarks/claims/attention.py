"""Measure experts with trained attention: the loss by averaging, the gain by attention experts.

Compare Branch-Attend-Mix (arXiv 2408.08274) with Branch-Train-MiX at equal tokens and at equal
compute. Compare both with methods without training.
"""

from collections.abc import Mapping
from typing import Any

from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures

# Methods without training.
ASSEMBLED: Mapping[str, Mapping[str, Any]] = {
    "nexus, attention averaged": {},
    "nexus, attention experts, gates of the projection": {"changes": {"attention": "experts"}},
    "nexus, attention experts with shared K/V, gates of the projection": {
        "changes": {"attention": "experts-shared-kv"}
    },
    "bam, gates at random": {"preset": "bam"},
    "btx, router at random": {"preset": "btx"},
}
# Methods that train everything by the next token, as the papers do.
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
# One finetune for all methods. The presets have different rates, and at few tokens the rate
# matters more than the method.
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
    """Measure dense networks, methods without training, and trained methods at two budgets.

    At `equal data` each method reads `tokens`. At `equal compute` the product of tokens and active
    parameters equals the baseline's.
    """
    domains = mixes.domains
    merge = Mix(experts=domains, preset="merge")
    measured: dict[str, Any] = {
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
            name: round(tokens * active[BASELINE] / count) for name, count in active.items()
        },
    }
    for title, by_method in budgets.items():
        measured[title] = {name: _trained(mixes, name, tokens=n) for name, n in by_method.items()}
    return measured


def _trained(mixes: Mixes, name: str, *, tokens: int) -> dict[str, Any]:
    mix = Mix(experts=mixes.domains, tokens=tokens, finetune=FINETUNE, **TRAINED[name])
    return figures.of_mix(mixes, mix) | {"tokens": tokens}
