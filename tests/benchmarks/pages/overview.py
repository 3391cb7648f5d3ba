"""Tables of the overview of results: six experts of SmolLM2-135M in one mix."""

from typing import Any

from tests.benchmarks.harness import markdown

FAMILY = "smollm2-135m"
DOMAINS = {
    "german-manuals": "German manuals",
    "metamath": "Metamath",
    "dictionary": "dictionary",
    "go": "Go",
    "cpp": "C++",
    "english-german": "English-German",
    "general": "general text",
}
# Title of a row -> place of its figures in `claims.json`, below this family.
ROWS = {
    "seed": ("upcycling", "seed"),
    "mean of seed and experts": ("upcycling", "merge"),
    "rows by a text encoder's vectors": (
        "ablations",
        "assembled",
        "rows by a text encoder's vectors",
    ),
    "default, without the experts' own covariance": (
        "ablations",
        "assembled",
        "without the experts' own covariance",
    ),
    "**default, nothing trained**": ("upcycling", "nexus", "0"),
    "default, projection of the experts' documents too": (
        "ablations",
        "assembled",
        "projection of the experts' documents too",
    ),
    "default, 24,576 tokens": ("upcycling", "nexus", "24576"),
    "**default, 49,152 tokens**": ("upcycling", "nexus", "49152"),
    "24,576 tokens, experts train instead of attention": (
        "ablations",
        "finetuned",
        "train experts, not attention",
    ),
    "linear router, 49,152 tokens": ("upcycling", "linear", "49152"),
    "FlexOlmo's rows, 49,152 tokens": ("upcycling", "flexolmo", "49152"),
    "MLP router, 49,152 tokens": ("upcycling", "mlp", "49152"),
    "right expert, by label": ("upcycling", "right expert"),
}


def tables() -> dict[str, str]:
    return {"six-experts": six_experts(markdown.result("claims")["families"][FAMILY])}


def six_experts(family: dict[str, Any]) -> str:
    """Return held-out perplexity by domain, and the share of the right experts' gain."""
    rows = []
    for title, keys in ROWS.items():
        figures: Any = family
        for key in keys:
            figures = figures[key]
        perplexities = [f"{figures['perplexity'][domain]:.2f}" for domain in DOMAINS]
        rows.append([title, *perplexities, _percent(figures["share_of_gain"])])
    return markdown.table(["", *DOMAINS.values(), "share of the gain, %"], rows)


def _percent(estimate: list[float]) -> str:
    middle, low, high = (f"{100 * value:.0f}" for value in estimate)
    return middle if low == high else f"{middle} [{low}, {high}]"
