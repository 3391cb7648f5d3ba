"""Read and renew the stored results of each family and part, with their days."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StoredResults:
    """The figures of families, with the day of measurement of each part in `measured`.

    `earlier` has the day of each network that was kept from an earlier run.
    """

    measured: dict[str, dict[str, str]] = field(default_factory=dict)
    earlier: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    families: dict[str, Figures] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        if not path.exists():
            return cls()
        result = json.loads(path.read_text())
        return cls(**{name: result.get(name, {}) for name in ("measured", "earlier", "families")})

    def renew(self, family: str, part: str, new: Figures, *, keeps: bool) -> None:
        """Store the figures of a part that were measured today.

        With `keeps`, keep the stored figures of networks that `new` lacks.
        """
        parts, days = self.families.setdefault(family, {}), self.measured.setdefault(family, {})
        before, earlier = parts.get(part, {}), self.earlier.get(family, {}).pop(part, {})
        if keeps:
            missing = sorted({*_names(before)} - {*_names(new)})
            if missing:
                kept_days = {name: earlier.get(name, days[part]) for name in missing}
                self.earlier.setdefault(family, {})[part] = kept_days
            new = _kept(before, new)
        parts[part], days[part] = new, datetime.now(UTC).date().isoformat()


def _kept(before: Figures, new: Figures) -> Figures:
    """Return the figures of `new`, and the networks of `before` that `new` lacks.

    A part is nested by method and budget. The figures of one network are never mixed.
    """
    if _is_network(before) or _is_network(new):
        return new
    return before | {
        name: _kept(before[name], value) if isinstance(value, dict) and name in before else value
        for name, value in new.items()
    }


def _names(figures: Mapping[str, Any], *, above: str = "") -> Iterator[str]:
    """Yield the names of all networks, as `method, budget`."""
    for name, value in figures.items():
        if isinstance(value, dict):
            if _is_network(value):
                yield f"{above}{name}"
            else:
                yield from _names(value, above=f"{above}{name}, ")


def _is_network(figures: Mapping[str, Any]) -> bool:
    """Return whether these are the figures of one network: only they have lists."""
    return any(isinstance(value, list) for value in figures.values())
