"""Make the tables of the page from the results, in Markdown."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks.claims import similarity
from tests.benchmarks.claims.estimates import over_seeds
from tests.benchmarks.claims.families.windows import GENERAL
from tests.benchmarks.claims.page import averages_table, general_table
from tests.benchmarks.harness import markdown

Figures = Mapping[str, Any]

LARGE = "smollm2-135m"
MISSING = "–"


def of(families: Figures) -> dict[str, str]:
    """Return every table whose figures were measured, by its name."""
    makers: dict[str, Callable[[Figures], str | None]] = {
        "upcycling": _upcycling,
        "general": lambda f: general_table.of(f.get(LARGE, {}).get("upcycling")),
        "extension": _extension,
        "old-domains": _old_domains,
        "continuations": _continuations,
        "routing": _routing,
        "similarity": _similarity,
        "attention-assembled": lambda f: _attention(f, "assembled"),
        "attention-averages": averages_table.of,
        "attention-equal-data": lambda f: _attention(f, "equal data"),
        "attention-equal-compute": lambda f: _attention(f, "equal compute"),
        "scaling": _scaling,
        "ablations-assembled": lambda f: _ablations(f, "assembled"),
        "ablations-finetuned": lambda f: _ablations(f, "finetuned"),
        "downstream": _downstream,
        "costs": _costs,
    }
    made = {name: make(families) for name, make in makers.items()}
    return {name: table for name, table in made.items() if table is not None}


def small_llamas(families: Figures, part: str, suffix: str = "") -> list[Figures]:
    """Return the figures of a part on the small Llamas, one for each measured training seed."""
    return [
        parts[part]
        for name, parts in families.items()
        if name.startswith("small-") and name.removeprefix("small-").lstrip("0123456789") == suffix
        if part in parts
    ]


def upcycled(families: Figures) -> dict[str, list[Figures]]:
    """Return the figures of upcycling by family, one for each measured training seed."""
    large = families.get(LARGE, {}).get("upcycling")
    by_family = {LARGE: [large] if large else [], "small": small_llamas(families, "upcycling")}
    return {name: of_seeds for name, of_seeds in by_family.items() if of_seeds}


def _upcycling(families: Figures) -> str | None:
    measured = upcycled(families)
    if not measured:
        return None
    budgets = {name: _budgets(of_seeds[0]) for name, of_seeds in measured.items()}
    # Families differ in their measured methods.
    most = max((seed for of_seeds in measured.values() for seed in of_seeds), key=len)
    rows = []
    for method, figures in most.items():
        if method == "seed" or method.startswith("expert "):
            continue
        cells: list[str] = []
        for name, of_seeds in measured.items():
            if "share_of_gain" in figures:
                # It has no budget, so it stands in the first column of its family.
                shares = [seed.get(method, {}).get("share_of_gain") for seed in of_seeds]
                cells += [_estimates(shares), *[""] * (len(budgets[name]) - 1)]
            else:
                cells += [
                    _estimates(
                        [seed.get(method, {}).get(b, {}).get("share_of_gain") for seed in of_seeds]
                    )
                    for b in budgets[name]
                ]
        # A method has no figures when its loss is the default's in all families.
        if {*cells} != {MISSING}:
            rows.append([method, *cells])
    head = [f"{name}, {_tokens(b)}" for name, family in budgets.items() for b in family]
    return markdown.table(["share of the right experts' gain, %", *head], rows)


def _budgets(figures: Figures) -> list[str]:
    """Return all budgets of the methods of a family, in order."""
    budgets = {b for f in figures.values() if "share_of_gain" not in f for b in f}
    return sorted(budgets, key=int)


def _extension(families: Figures) -> str | None:
    return _of_extension(families, "new", percent=True)


def _old_domains(families: Figures) -> str | None:
    return _of_extension(families, "old", percent=False)


def _of_extension(families: Figures, field: str, *, percent: bool) -> str | None:
    large, small = families.get(LARGE, {}).get("extension", {}), small_llamas(families, "extension")
    known = [seed for seed in (large, *small) if seed]
    if not known:
        return None
    large_budgets, small_budgets = (
        list(dict.fromkeys(b for seed in seeds for by_budget in seed.values() for b in by_budget))
        for seeds in ([large], small)
    )
    rows = []
    for method in dict.fromkeys(
        method for seed in known for method, budgets in seed.items() if budgets
    ):
        cells = [
            _text(large.get(method, {}).get(b, {}).get(field), percent=percent)
            for b in large_budgets
        ]
        cells += [
            _seeds([seed.get(method, {}).get(b, {}).get(field) for seed in small], percent=percent)
            for b in small_budgets
        ]
        rows.append([method, *cells])
    title = "share of the gain on the new domain, %" if percent else "perplexity over the base's"
    head = [f"SmolLM2, {_tokens(b)}" for b in large_budgets]
    head += [f"small, {_tokens(b)}" for b in small_budgets]
    return markdown.table([title, *head], rows)


def _continuations(families: Figures) -> str | None:
    """Return the table of true continuations, for all methods that answered questions."""
    answered = {
        name: [_answered(seed) for seed in of_seeds]
        for name, of_seeds in upcycled(families).items()
    }
    questioned = [key for of_seeds in answered.values() for seed in of_seeds for key in seed]
    if not questioned:
        return None
    methods = list(dict.fromkeys(method for method, _ in questioned))
    rows = [
        [
            method,
            _tokens(budget) if budget else "",
            *(_estimates([a.get((method, budget)) for a in seeds]) for seeds in answered.values()),
        ]
        for method, budget in sorted(
            {*questioned}, key=lambda k: (methods.index(k[0]), int(k[1] or 0))
        )
    ]
    return markdown.table(["true continuations found, %", "tokens", *answered], rows)


def _answered(figures: Figures) -> dict[tuple[str, str], Sequence[float]]:
    """Return answers by method and budget; the budget is empty where there is none."""
    of_budgets = {
        (method, budget): measured
        for method, budgets in figures.items()
        for budget, measured in ({"": budgets} if "share_of_gain" in budgets else budgets).items()
    }
    return {
        key: measured["true_continuation"]
        for key, measured in of_budgets.items()
        if "true_continuation" in measured
    }


def _routing(families: Figures) -> str | None:
    figures = families.get(LARGE, {}).get("upcycling")
    if figures is None:
        return None
    last = list(figures["nexus"])[-1]
    routing = figures["nexus"][last]["routing"]
    domains = list(routing)
    rows = [[name, *(f"{100 * share:.0f}" for share in routing[name])] for name in domains]
    return markdown.table(["% of the tokens of", *(f"to {name}" for name in domains)], rows)


def _similarity(families: Figures) -> str | None:
    figures = families.get(LARGE, {}).get("similarity")
    if figures is None:
        return None
    rows = []
    for name, cosines in figures["cosines"].items():
        one, other, cosine = similarity.closest(figures["domains"], cosines)
        rows.append(
            [name, f"{similarity.mean_apart(cosines):.2f}", f"{one} and {other}", f"{cosine:.2f}"]
        )
    return markdown.table(["cosines of", "two domains, mean", "most alike", "their cosine"], rows)


def _attention(families: Figures, kind: str) -> str | None:
    blocks = {b: small_llamas(families, "attention", f"-{b}") for b in ("parallel", "sequential")}
    if not all(blocks.values()):
        return None
    names = list(blocks["parallel"][0][kind])
    rows = []
    if kind == "assembled":
        for name in ("merge", "right expert"):
            cells = [
                _estimates([seed[name]["share_of_gain"] for seed in blocks[b]]) for b in blocks
            ]
            rows.append([name, *cells])
    for name in names:
        cells = [
            _estimates([seed[kind][name]["share_of_gain"] for seed in blocks[b]]) for b in blocks
        ]
        cells += [
            _mean([seed[kind][name]["mean_log_perplexity"][0] for seed in blocks[b]])
            for b in blocks
        ]
        cells += [f"{_seconds(kind, name, blocks[b]):.0f}" for b in blocks]
        rows.append([name, *cells])
    head = [f"share of the gain, %, {b} blocks" for b in blocks]
    if kind == "assembled":
        rows = [row[: 1 + len(blocks)] for row in rows]
    else:
        head += [f"mean log-perplexity, {b} blocks" for b in blocks]
        head += [f"CPU seconds, {b} blocks" for b in blocks]
    return markdown.table(["", *head], rows)


def _seconds(kind: str, name: str, of_seeds: Sequence[Figures]) -> float:
    """Return the CPU seconds of a finetune, mean over training seeds."""
    return float(statistics.mean(seed[kind][name]["cpu_seconds"] for seed in of_seeds))


def _scaling(families: Figures) -> str | None:
    large = families.get(LARGE, {}).get("scaling")
    by_family = {LARGE: [large] if large else [], "small": small_llamas(families, "scaling")}
    rows = [
        [
            name,
            count,
            _estimates([seed[count]["share_of_gain"] for seed in of_seeds]),
            _estimates([seed[count]["share_of_gain_on_first"] for seed in of_seeds]),
            *(
                f"{100 * statistics.mean(seed[count][share] for seed in of_seeds):.0f}"
                for share in ("to_own_expert", "stolen_of_first")
            ),
        ]
        for name, of_seeds in by_family.items()
        if of_seeds
        for count in of_seeds[0]
    ]
    head = ["family", "experts", "share of the gain, %", "on the first two domains, %"]
    head += ["tokens to their own expert, %", "of the first two domains' tokens elsewhere, %"]
    return markdown.table(head, rows) if rows else None


def _ablations(families: Figures, kind: str) -> str | None:
    large, small = families.get(LARGE, {}).get("ablations"), small_llamas(families, "ablations")
    known = [seed for seed in (*small, large) if seed]
    if not known:
        return None
    rows = []
    for name in dict.fromkeys(name for seed in known for name in seed[kind]):
        of_large = (large or {}).get(kind, {}).get(name, {})
        of_small = [seed[kind][name] for seed in small if name in seed[kind]]
        rows.append(
            [
                name,
                _text(of_large.get("share_of_gain")),
                f"{100 * of_large['to_own_expert']:.0f}" if of_large else MISSING,
                _mean([of_large["perplexity"][GENERAL]], digits=2) if of_large else MISSING,
                _estimates([figures["share_of_gain"] for figures in of_small]),
            ]
        )
    head = ["", f"{LARGE}: share of the gain, %", "tokens to their own expert, %"]
    head.append("perplexity on general text")
    return markdown.table([*head, "small: share of the gain, %"], rows)


def _downstream(families: Figures) -> str | None:
    figures = families.get(LARGE, {}).get("downstream")
    if figures is None:
        return None
    sets = list(figures["chance"])
    rows = [
        [
            name,
            *(_text(f[s]) if isinstance(f[s], list) else f"{100 * f[s]:.0f}" for s in sets),
        ]
        for name, f in figures.items()
    ]
    return markdown.table(["right answers, %", *sets], rows)


def _costs(families: Figures) -> str | None:
    figures = families.get(LARGE, {}).get("upcycling")
    if figures is None:
        return None
    rows = [
        [method, _tokens(budget), f"{f['cpu_seconds']:.0f}", f"{f['new_bytes'] / 1e6:.1f}"]
        for method, by_budget in figures.items()
        if "share_of_gain" not in by_budget
        for budget, f in by_budget.items()
    ]
    return markdown.table(["method", "tokens", "CPU seconds", "new MB stored"], rows)


def _text(estimate: Sequence[float] | None, *, percent: bool = True) -> str:
    """Return a figure with its interval over text."""
    if estimate is None:
        return MISSING
    return _interval(*estimate, percent=percent)


def _estimates(estimates: Sequence[Sequence[float] | None]) -> str:
    """Return a figure with its interval over training seeds; over text for a single one."""
    return _seeds(estimates) if len(estimates) > 1 else _text(next(iter(estimates), None))


def _seeds(estimates: Sequence[Sequence[float] | None], *, percent: bool = True) -> str:
    """Return the mean over training seeds with its interval."""
    values = [estimate[0] for estimate in estimates if estimate is not None]
    if not values:
        return MISSING
    mean = over_seeds(values)
    return _interval(mean.value, mean.low, mean.high, percent=percent)


def _interval(value: float, low: float, high: float, *, percent: bool) -> str:
    factor, digits = (100, 0) if percent else (1, 3)
    # z: a zero after rounding has no sign.
    text = f"{factor * value:z.{digits}f}"
    if low != low:  # NaN: one seed has no interval
        return text
    return f"{text} [{factor * low:z.{digits}f}, {factor * high:z.{digits}f}]"


def _mean(values: Sequence[float], *, digits: int = 3) -> str:
    return f"{statistics.mean(values):.{digits}f}"


def _tokens(budget: str) -> str:
    return "0" if budget == "0" else f"{int(budget):,} tokens"
