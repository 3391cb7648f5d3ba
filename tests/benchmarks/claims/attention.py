"""Measure experts with trained attention: the loss by averaging, the gain by attention experts.

Compare Branch-Attend-Mix (arXiv 2408.08274) with Branch-Train-MiX at equal tokens and at equal
compute. Compare both with methods without training. Compare the mean of attention with the average
by regression (arXiv 2212.09849).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_ffn
from tests.benchmarks.claims.families.windows import GENERAL
from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import figures

AVERAGED, REGRESSED = "nexus, attention averaged", "nexus, attention by regression"
# The two averages of what is not routed.
AVERAGES: Mapping[str, Mapping[str, Any]] = {
    AVERAGED: {"changes": {"averaging": "mean"}},
    REGRESSED: {"changes": {"averaging": "regression"}},
}
# Methods without training.
ASSEMBLED: Mapping[str, Mapping[str, Any]] = {
    **AVERAGES,
    "nexus, attention experts, gates of the projection": {
        "changes": {"attention": "experts", "averaging": "mean"}
    },
    "nexus, attention experts with shared K/V, gates of the projection": {
        "changes": {"attention": "experts-shared-kv", "averaging": "mean"}
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


def measure_averages(mixes: Mixes) -> dict[str, Any]:
    """Measure the two averages with nothing trained, routed by the mix and by the label.

    By the label each domain is read with its own expert's FFNs, so that only the average loses.
    """
    domains = mixes.domains
    averages = {name: Mix(experts=domains, **fields) for name, fields in AVERAGES.items()}
    return {
        "seed": figures.of_network(mixes, mixes.family.seed, domains),
        "merge": figures.of_network(mixes, Mix(experts=domains, preset="merge"), domains),
        "right expert": figures.oracle(mixes, domains),
        "assembled": {name: figures.of_mix(mixes, mix) for name, mix in averages.items()},
        "by the label": {
            name: figures.of_readers(mixes, _readers(mixes, mix)) for name, mix in averages.items()
        },
    }


def _readers(mixes: Mixes, mix: Mix) -> dict[str, Manifest]:
    """Return for each domain a dense network: its expert's FFNs, and the rest of the mix.

    General text is read with the FFNs of the seed.
    """
    rest = mixes.manifest(mix).tensors
    ffns = dict(mixes.family.experts) | {GENERAL: mixes.family.seed}
    return {
        name: replace(
            owner, tensors={n: e if is_ffn(n) else rest[n] for n, e in owner.tensors.items()}
        )
        for name, owner in ffns.items()
    }


def _trained(mixes: Mixes, name: str, *, tokens: int) -> dict[str, Any]:
    mix = Mix(experts=mixes.domains, tokens=tokens, finetune=FINETUNE, **TRAINED[name])
    return figures.of_mix(mixes, mix) | {"tokens": tokens}
