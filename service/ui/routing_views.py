"""Where the routers of a mix send tokens: of each domain, and of each step of a finetune."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assembler.recipes.mix_architecture import expert_names
from assembler.recipes.recipe import Recipe
from engine.gates.mix_gate import GateReport


@dataclass(frozen=True)
class Matrix:
    """Shares of first choices: a row for each domain, a column for each of `experts`."""

    title: str
    experts: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class Shares:
    """Shares of first choices while a mix is finetuned: of each expert, after so many tokens."""

    experts: tuple[str, ...]
    tokens: list[int]
    columns: list[list[float]]

    @property
    def points(self) -> list[list[float]]:
        """The columns that a chart draws: tokens, then the shares of each expert."""
        return [[float(count) for count in self.tokens], *self.columns]


def matrices(report: GateReport) -> list[Matrix]:
    """Return the matrix before the finetune, and the one after it if there was one.

    There is none for a mix that is one network, and in reports from before routing was recorded.
    """
    by_domain = {d.domain: d.routing for d in report.domains if d.routing is not None}
    if not by_domain or len(by_domain) < len(report.domains):
        return []
    before = {domain: routing.assembled for domain, routing in by_domain.items()}
    after = {d: routing.finetuned for d, routing in by_domain.items() if routing.finetuned}
    titles = ("Before the finetune", "After the finetune") if after else ("As assembled",)
    return [_matrix(*pair) for pair in zip(titles, (before, after), strict=False)]


def shares(recipe: Recipe, points: Sequence[Mapping[str, Any]]) -> Shares | None:
    """Return the shares that the steps of a finetune have recorded; None if none has."""
    known = [point for point in points if point.get("expert_shares")]
    if not known:
        return None
    columns = zip(*(point["expert_shares"] for point in known), strict=True)
    tokens = [point["num_tokens"] for point in known]
    return Shares(expert_names(recipe), tokens, [list(column) for column in columns])


def _matrix(title: str, by_domain: Mapping[str, Mapping[str, float]]) -> Matrix:
    experts = tuple(next(iter(by_domain.values())))
    rows = tuple((d, tuple(shares[name] for name in experts)) for d, shares in by_domain.items())
    return Matrix(title, experts, rows)
