"""Measure extension: add each domain in turn to a finetuned mix of the others.

The base is finetuned first. Then the mix gets the expert and a finetune on half new, half old data.
On the new domain the figure is the share of the right expert's gain. On the old domains it is the
perplexity divided by the base's.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from tests.benchmarks.claims import upcycling
from tests.benchmarks.claims.estimates import over_text
from tests.benchmarks.claims.mixes import Mix, Mixes, NotMeasured
from tests.benchmarks.claims.page import figures

RESET = ", reset"
ROUTERS = (
    *("nexus", "nexus, by the share", "nexus, by cross-entropy"),
    *("flexolmo", "linear", f"linear{RESET}"),
)
PAPERS = ("paper's nexus", "paper's linear", f"paper's linear{RESET}")


def measure(
    mixes: Mixes, *, methods: Sequence[str], base_tokens: int, budgets: Sequence[int]
) -> dict[str, Any]:
    """Measure each method and budget, as a mean over all added domains and for each of them.

    The result leaves out what raises NotMeasured.
    """
    measured: dict[str, Any] = {}
    for method in methods:
        measured[method] = {}
        for tokens in budgets:
            with suppress(NotMeasured):
                if _is_default(mixes, method, base_tokens=base_tokens, tokens=tokens):
                    continue
                measured[method][str(tokens)] = _of_budget(
                    mixes, method, base_tokens=base_tokens, tokens=tokens
                )
    return measured


def _is_default(mixes: Mixes, method: str, *, base_tokens: int, tokens: int) -> bool:
    """Return whether the named loss is the preset's own choice in all bases and extensions."""
    if method not in upcycling.NAMED_LOSSES:
        return False
    preset, q = upcycling.NAMED_LOSSES[method]
    return all(
        mixes.domain_loss_q(mix) == q
        for base, extended in _pairs(mixes, preset, base_tokens=base_tokens, tokens=tokens)
        for mix in ((base, extended) if tokens else (base,))
    )


def _pairs(
    mixes: Mixes, method: str, *, base_tokens: int, tokens: int
) -> Iterator[tuple[Mix, Mix]]:
    """Yield for every domain the mix without it, and the extension of this mix by it."""
    for domain in mixes.domains:
        others = [name for name in mixes.domains if name != domain]
        base = _mix(method, others, tokens=base_tokens)
        yield base, _mix(method, [*others, domain], tokens=tokens, base=base)


def _of_budget(mixes: Mixes, method: str, *, base_tokens: int, tokens: int) -> dict[str, Any]:
    new, new_seed, new_right, old, old_base, to_new, old_to_new = [], [], [], [], [], [], []
    by_domain = {}
    for base, mix in _pairs(mixes, method, base_tokens=base_tokens, tokens=tokens):
        others, domain = base.experts, mix.experts[-1]
        before, extended = mixes.read(base), mixes.read(mix)
        new.append(extended.losses[domain])
        new_seed.append(mixes.read(mixes.family.seed).losses[domain])
        new_right.append(mixes.read(mixes.family.experts[domain]).losses[domain])
        old.append(figures.sample(extended, others))
        old_base.append(figures.sample(before, others))
        to_new.append(extended.routing[domain][-1])
        old_to_new.append(np.mean([extended.routing[name][-1] for name in others]))
        by_domain[domain] = {
            "new": over_text(
                figures.share_of_gain, *map(np.asarray, (new[-1], new_seed[-1], new_right[-1]))
            ).rounded(),
            "old": over_text(figures.ratio, old[-1], old_base[-1]).rounded(),
        }
    means = [np.mean(losses, axis=0) for losses in (new, new_seed, new_right)]
    return {
        "new": over_text(figures.share_of_gain, *means).rounded(),
        "old": over_text(figures.ratio, np.mean(old, axis=0), np.mean(old_base, axis=0)).rounded(),
        "new_tokens_to_new": round(float(np.mean(to_new)), 3),
        "old_tokens_to_new": round(float(np.mean(old_to_new)), 3),
        "by_domain": by_domain,
    }


def _mix(method: str, experts: Sequence[str], *, tokens: int, base: Mix | None = None) -> Mix:
    name = method.removesuffix(RESET)
    mix = upcycling.mix_of(name, experts, tokens=tokens, base=base)
    if name == method:
        return mix
    return replace(mix, changes={**mix.changes, "router_extension": "reset"})
