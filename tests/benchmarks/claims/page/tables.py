"""The results as tables in Markdown, with the papers' own figures beside them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.benchmarks.claims import similarity
from tests.benchmarks.claims.estimates import over_seeds
from tests.benchmarks.harness import markdown

Figures = Mapping[str, Any]

LARGE = "smollm2-135m"
MISSING = "–"


def of(families: Figures) -> dict[str, str]:
    """Every table that there are figures for, by its name."""
    makers: dict[str, Callable[[Figures], str | None]] = {
        "upcycling": _upcycling,
        "extension": _extension,
        "old-domains": _old_domains,
        "continuations": _continuations,
        "routing": _routing,
        "similarity": _similarity,
        "attention-assembled": lambda f: _attention(f, "assembled"),
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


def smalls(families: Figures, part: str, suffix: str = "") -> list[Figures]:
    """What a part found on the small Llamas, of every training seed that it was run on."""
    return [
        own[part]
        for name, own in families.items()
        if name.startswith("small-") and name.removeprefix("small-").lstrip("0123456789") == suffix
        if part in own
    ]


def upcycled(families: Figures) -> dict[str, list[Figures]]:
    """What was found of upcycling, by the names of families, of every training seed."""
    large = families.get(LARGE, {}).get("upcycling")
    found = {LARGE: [large] if large else [], "small": smalls(families, "upcycling")}
    return {name: of_seeds for name, of_seeds in found.items() if of_seeds}


def _upcycling(families: Figures) -> str | None:
    measured = upcycled(families)
    if not measured:
        return None
    budgets = {name: _budgets(of_seeds[0]) for name, of_seeds in measured.items()}
    # Not every family was measured with every method.
    most = max((own for of_seeds in measured.values() for own in of_seeds), key=len)
    rows = []
    for method, figures in most.items():
        if method == "seed" or method.startswith("expert "):
            continue
        cells: list[str] = []
        for name, of_seeds in measured.items():
            if "share_of_gain" in figures:
                # Of no budget: in the first column of its family.
                shares = [own.get(method, {}).get("share_of_gain") for own in of_seeds]
                cells += [_estimates(shares), *[""] * (len(budgets[name]) - 1)]
            else:
                cells += [
                    _estimates(
                        [own.get(method, {}).get(b, {}).get("share_of_gain") for own in of_seeds]
                    )
                    for b in budgets[name]
                ]
        # What names a loss that is everywhere the default's own has no figures.
        if {*cells} != {MISSING}:
            rows.append([method, *cells])
    head = [f"{name}, {_tokens(b)}" for name, own in budgets.items() for b in own]
    return markdown.table(["share of the right experts' gain, %", *head], rows)


def _budgets(figures: Figures) -> list[str]:
    """Of a family, in all its methods."""
    found = {b for own in figures.values() if "share_of_gain" not in own for b in own}
    return sorted(found, key=int)


def _extension(families: Figures) -> str | None:
    return _of_extension(families, "new", percent=True)


def _old_domains(families: Figures) -> str | None:
    return _of_extension(families, "old", percent=False)


def _of_extension(families: Figures, field: str, *, percent: bool) -> str | None:
    large, small = families.get(LARGE, {}).get("extension", {}), smalls(families, "extension")
    known = [own for own in (large, *small) if own]
    if not known:
        return None
    large_budgets, small_budgets = (
        list(dict.fromkeys(b for own in found for by_budget in own.values() for b in by_budget))
        for found in ([large], small)
    )
    rows = []
    for method in dict.fromkeys(method for own in known for method, found in own.items() if found):
        cells = [
            _text(large.get(method, {}).get(b, {}).get(field), percent=percent)
            for b in large_budgets
        ]
        cells += [
            _seeds([own.get(method, {}).get(b, {}).get(field) for own in small], percent=percent)
            for b in small_budgets
        ]
        rows.append([method, *cells])
    title = "share of the gain on the new domain, %" if percent else "perplexity over the base's"
    head = [f"SmolLM2, {_tokens(b)}" for b in large_budgets]
    head += [f"small, {_tokens(b)}" for b in small_budgets]
    return markdown.table([title, *head], rows)


def _continuations(families: Figures) -> str | None:
    """Of whatever was asked."""
    answered = {
        name: [_answered(own) for own in of_seeds] for name, of_seeds in upcycled(families).items()
    }
    asked = [key for of_seeds in answered.values() for own in of_seeds for key in own]
    if not asked:
        return None
    methods = list(dict.fromkeys(method for method, _ in asked))
    rows = [
        [
            method,
            _tokens(budget) if budget else "",
            *(_estimates([a.get((method, budget)) for a in own]) for own in answered.values()),
        ]
        for method, budget in sorted({*asked}, key=lambda k: (methods.index(k[0]), int(k[1] or 0)))
    ]
    return markdown.table(["true continuations found, %", "tokens", *answered], rows)


def _answered(figures: Figures) -> dict[tuple[str, str], Sequence[float]]:
    """By method and budget, which is empty where there is none."""
    of_budgets = {
        (method, budget): own
        for method, found in figures.items()
        for budget, own in ({"": found} if "share_of_gain" in found else found).items()
    }
    return {
        key: own["true_continuation"]
        for key, own in of_budgets.items()
        if "true_continuation" in own
    }


def _routing(families: Figures) -> str | None:
    found = families.get(LARGE, {}).get("upcycling")
    if found is None:
        return None
    last = list(found["nexus"])[-1]
    routing = found["nexus"][last]["routing"]
    domains = list(routing)
    rows = [[name, *(f"{100 * share:.0f}" for share in routing[name])] for name in domains]
    return markdown.table(["% of the tokens of", *(f"to {name}" for name in domains)], rows)


def _similarity(families: Figures) -> str | None:
    found = families.get(LARGE, {}).get("similarity")
    if found is None:
        return None
    rows = []
    for name, cosines in found["cosines"].items():
        one, other, cosine = similarity.closest(found["domains"], cosines)
        rows.append(
            [name, f"{similarity.mean_apart(cosines):.2f}", f"{one} and {other}", f"{cosine:.2f}"]
        )
    return markdown.table(["cosines of", "two domains, mean", "most alike", "their cosine"], rows)


def _attention(families: Figures, kind: str) -> str | None:
    blocks = {b: smalls(families, "attention", f"-{b}") for b in ("parallel", "sequential")}
    if not all(blocks.values()):
        return None
    names = list(blocks["parallel"][0][kind])
    rows = []
    if kind == "assembled":
        for name in ("merge", "right expert"):
            cells = [_estimates([own[name]["share_of_gain"] for own in blocks[b]]) for b in blocks]
            rows.append([name, *cells])
    for name in names:
        cells = [
            _estimates([own[kind][name]["share_of_gain"] for own in blocks[b]]) for b in blocks
        ]
        cells += [
            _mean([own[kind][name]["mean_log_perplexity"][0] for own in blocks[b]]) for b in blocks
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
    return float(statistics.mean(own[kind][name]["cpu_seconds"] for own in of_seeds))


def _scaling(families: Figures) -> str | None:
    large = families.get(LARGE, {}).get("scaling")
    found = {LARGE: [large] if large else [], "small": smalls(families, "scaling")}
    rows = [
        [
            name,
            count,
            _estimates([own[count]["share_of_gain"] for own in of_seeds]),
            _estimates([own[count]["share_of_gain_on_first"] for own in of_seeds]),
            *(
                f"{100 * statistics.mean(own[count][share] for own in of_seeds):.0f}"
                for share in ("to_own_expert", "stolen_of_first")
            ),
        ]
        for name, of_seeds in found.items()
        if of_seeds
        for count in of_seeds[0]
    ]
    head = ["family", "experts", "share of the gain, %", "on the first two domains, %"]
    head += ["tokens to their own expert, %", "of the first two domains' tokens elsewhere, %"]
    return markdown.table(head, rows) if rows else None


def _ablations(families: Figures, kind: str) -> str | None:
    large, small = families.get(LARGE, {}).get("ablations"), smalls(families, "ablations")
    known = [own for own in (*small, large) if own]
    if not known:
        return None
    rows = []
    for name in dict.fromkeys(name for own in known for name in own[kind]):
        of_large = (large or {}).get(kind, {}).get(name, {})
        of_small = [own[kind][name] for own in small if name in own[kind]]
        rows.append(
            [
                name,
                _text(of_large.get("share_of_gain")),
                f"{100 * of_large['to_own_expert']:.0f}" if of_large else MISSING,
                _estimates([own["share_of_gain"] for own in of_small]),
            ]
        )
    head = ["", f"{LARGE}: share of the gain, %", "tokens to their own expert, %"]
    return markdown.table([*head, "small: share of the gain, %"], rows)


def _downstream(families: Figures) -> str | None:
    found = families.get(LARGE, {}).get("downstream")
    if found is None:
        return None
    sets = list(found["chance"])
    rows = [
        [
            name,
            *(_text(own[s]) if isinstance(own[s], list) else f"{100 * own[s]:.0f}" for s in sets),
        ]
        for name, own in found.items()
    ]
    return markdown.table(["right answers, %", *sets], rows)


def _costs(families: Figures) -> str | None:
    found = families.get(LARGE, {}).get("upcycling")
    if found is None:
        return None
    rows = [
        [method, _tokens(budget), f"{own['cpu_seconds']:.0f}", f"{own['new_bytes'] / 1e6:.1f}"]
        for method, by_budget in found.items()
        if "share_of_gain" not in by_budget
        for budget, own in by_budget.items()
    ]
    return markdown.table(["method", "tokens", "CPU seconds", "new MB stored"], rows)


def _text(estimate: Sequence[float] | None, *, percent: bool = True) -> str:
    """A figure with its interval over text."""
    if estimate is None:
        return MISSING
    return _interval(*estimate, percent=percent)


def _estimates(estimates: Sequence[Sequence[float] | None]) -> str:
    """Over training seeds where there are several, else over text."""
    return _seeds(estimates) if len(estimates) > 1 else _text(next(iter(estimates), None))


def _seeds(estimates: Sequence[Sequence[float] | None], *, percent: bool = True) -> str:
    """The mean over training seeds with its interval over them."""
    values = [estimate[0] for estimate in estimates if estimate is not None]
    if not values:
        return MISSING
    found = over_seeds(values)
    return _interval(found.value, found.low, found.high, percent=percent)


def _interval(value: float, low: float, high: float, *, percent: bool) -> str:
    factor, digits = (100, 0) if percent else (1, 3)
    # z: what rounds to zero has no sign.
    told = f"{factor * value:z.{digits}f}"
    if low != low:  # not a number: there is no interval of one
        return told
    return f"{told} [{factor * low:z.{digits}f}, {factor * high:z.{digits}f}]"


def _mean(values: Sequence[float], *, digits: int = 3) -> str:
    return f"{statistics.mean(values):.{digits}f}"


def _tokens(budget: str) -> str:
    return "0" if budget == "0" else f"{int(budget):,} tokens"
