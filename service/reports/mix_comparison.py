"""Compares a mix with its experts: held-out perplexity of every model, domain by domain.

A further row has perplexities on general text, which is of no expert's domain.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from engine.gates.mix_gate import GateReport
from engine.gates.perplexities import Perplexities


@dataclass(frozen=True)
class Column:
    """One model and its perplexity in each domain, in the order of the rows.

    `general` is that on text of no expert's domain, None where the gate has read none.
    """

    title: str
    values: tuple[float, ...]
    general: float | None = None

    @property
    def mean_log(self) -> float:
        """Mean log-perplexity over the domains, in nats per token."""
        return statistics.fmean(map(math.log, self.values))


@dataclass(frozen=True, kw_only=True)
class MixComparison:
    """A table with one row for each domain and one column for each model.

    `base` is the version that the mix was made from, and `base_domains` are its domains.
    `assembled` is the mix before its finetune, `finetuned` after it, `compressed` after
    compression. `oracle` takes the right expert for each domain by its label; it is an upper bound.
    It stands in `columns` in place of the experts where the report has no baselines.
    """

    domains: tuple[str, ...]
    seed: Column
    experts: tuple[Column, ...]
    merge: Column | None
    base: Column | None
    base_domains: frozenset[str]
    assembled: Column
    finetuned: Column | None
    compressed: Column | None
    oracle: Column

    @classmethod
    def of(cls, report: GateReport) -> Self:
        """Read the table from a gate report, in which every domain has an expert of its name."""
        domains = report.domains
        has_base = all(d.perplexity.base is not None for d in domains)
        has_baselines = all(d.perplexity.merge is not None for d in domains)
        is_finetuned = all(d.perplexity.finetuned is not None for d in domains)
        is_compressed = all(d.perplexity.compressed is not None for d in domains)

        def column(title: str, perplexity: Callable[[Perplexities], float | None]) -> Column:
            return _column(title, report, perplexity)

        return cls(
            domains=tuple(d.domain for d in domains),
            seed=column("seed", lambda p: p.seed),
            experts=tuple(_expert(d.domain, report) for d in domains) if has_baselines else (),
            merge=column("mean merge", lambda p: p.merge) if has_baselines else None,
            base=column("version before", lambda p: p.base) if has_base else None,
            base_domains=frozenset(d.domain for d in domains if d.base is not None),
            assembled=column("mix before", lambda p: p.assembled),
            finetuned=column("mix after", lambda p: p.trained) if is_finetuned else None,
            compressed=column("mix compressed", lambda p: p.candidate) if is_compressed else None,
            oracle=_oracle(report),
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that exist, from the seed to the newest state of the mix."""
        optional = (self.merge, self.base, self.assembled, self.finetuned, self.compressed)
        experts = self.experts or (self.oracle,)
        return (self.seed, *experts, *(c for c in optional if c is not None))

    @property
    def has_general(self) -> bool:
        """Whether the gate has read text of no expert's domain."""
        return self.seed.general is not None

    @property
    def general_change(self) -> float | None:
        """The relative change of perplexity from the base to the mix on general text."""
        if self.base is None or self.base.general is None or self._mix.general is None:
            return None
        return self._mix.general / self.base.general - 1

    @property
    def _mix(self) -> Column:
        """The mix to be published."""
        return self.compressed or self.finetuned or self.assembled

    def best(self, row: int) -> float:
        """Return the lowest perplexity in a domain."""
        return min(column.values[row] for column in self.columns)

    def change(self, row: int) -> float | None:
        """Return the relative change of perplexity from the base to the mix in a domain.

        A negative change is better. None when the base does not have the domain.
        """
        if self.base is None or self.domains[row] not in self.base_domains:
            return None
        return self._mix.values[row] / self.base.values[row] - 1

    def share_of_gain(self, column: Column) -> float:
        """Return how much of the oracle's gain over the seed a model reaches: 1 is all of it.

        The gain is measured in mean log-perplexity. NaN when the oracle gains nothing.
        """
        gain = self.seed.mean_log - self.oracle.mean_log
        return (self.seed.mean_log - column.mean_log) / gain if gain > 0 else math.nan


def _column(
    title: str, report: GateReport, perplexity: Callable[[Perplexities], float | None]
) -> Column:
    values = [perplexity(domain.perplexity) for domain in report.domains]
    assert None not in values, "the caller asks only for models that were measured"
    general = None if report.general is None else perplexity(report.general.perplexity)
    return Column(title, tuple(value for value in values if value is not None), general)


def _oracle(report: GateReport) -> Column:
    """Return the right expert of each domain; on general text, the best of all."""
    general = None if report.general is None else min(report.general.perplexity.experts.values())
    own = tuple(domain.perplexity.experts[domain.domain] for domain in report.domains)
    return Column("right expert", own, general)


def _expert(name: str, report: GateReport) -> Column:
    return _column(name, report, lambda p: p.experts[name])
