"""The table people judge a mix by: held-out perplexity of everything that took part, by domain."""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from engine.gates.mix_gate import DomainReport, GateReport, Perplexities


@dataclass(frozen=True)
class Column:
    """One model: its perplexity in each domain, in the order of the rows."""

    title: str
    values: tuple[float, ...]

    @property
    def mean_log(self) -> float:
        """Mean log-perplexity over the domains, in nats per token."""
        return statistics.fmean(map(math.log, self.values))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`base` is the version that the mix was made from, `known` its domains; `oracle` is the right
    expert of each domain, chosen by label, which is no column."""

    domains: tuple[str, ...]
    seed: Column
    experts: tuple[Column, ...]
    merge: Column
    base: Column | None
    known: frozenset[str]
    before: Column
    after: Column | None
    compressed: Column | None
    oracle: Column

    @classmethod
    def of(cls, report: GateReport) -> "Comparison":
        """Read it from a gate report. Every domain has an expert of its own name."""
        domains = report.domains
        base = [domain.perplexity.base for domain in domains]
        before = tuple(value for value in base if value is not None)
        finetuned = all(domain.perplexity.finetuned is not None for domain in domains)
        compressed = all(domain.perplexity.compressed is not None for domain in domains)
        return cls(
            domains=tuple(domain.domain for domain in domains),
            seed=_column("seed", domains, lambda p: p.seed),
            experts=tuple(_expert(domain.domain, domains) for domain in domains),
            merge=_column("mean merge", domains, lambda p: p.merge),
            base=Column("version before", before) if len(before) == len(base) else None,
            known=frozenset(own.domain for own in domains if own.base is not None),
            before=_column("mix before", domains, lambda p: p.assembled),
            after=_column("mix after", domains, lambda p: p.trained) if finetuned else None,
            compressed=_column("mix compressed", domains, lambda p: p.candidate)
            if compressed
            else None,
            oracle=Column("right expert", tuple(d.perplexity.experts[d.domain] for d in domains)),
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        optional = (self.base, self.before, self.after, self.compressed)
        made = (column for column in optional if column is not None)
        return (self.seed, *self.experts, self.merge, *made)

    def best(self, row: int) -> float:
        """The lowest perplexity of a domain."""
        return min(column.values[row] for column in self.columns)

    def change(self, row: int) -> float | None:
        """How much larger the mix's perplexity is than the version before's, as a share of that;
        negative is better. None for a domain that the version before did not have."""
        if self.base is None or self.domains[row] not in self.known:
            return None
        mix = self.compressed or self.after or self.before
        return mix.values[row] / self.base.values[row] - 1

    def share_of_gain(self, column: Column) -> float:
        """How much of what the right expert gains over the seed a model gains: 1 is all of it.

        Measured in mean log-perplexity; NaN where the experts gain nothing.
        """
        gain = self.seed.mean_log - self.oracle.mean_log
        return (self.seed.mean_log - column.mean_log) / gain if gain > 0 else math.nan


def _column(
    title: str, domains: tuple[DomainReport, ...], perplexity: Callable[[Perplexities], float]
) -> Column:
    return Column(title, tuple(perplexity(domain.perplexity) for domain in domains))


def _expert(name: str, domains: tuple[DomainReport, ...]) -> Column:
    return _column(name, domains, lambda p: p.experts[name])
