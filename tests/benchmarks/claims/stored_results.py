"""What a result has of each family and part, and when it was measured."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Known:
    """`measured` is the day of each part of each family, `earlier` that of those of its networks
    which were kept from a run before."""

    measured: dict[str, dict[str, str]] = field(default_factory=dict)
    earlier: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    families: dict[str, Figures] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Self:
        if not path.exists():
            return cls()
        result = json.loads(path.read_text())
        return cls(**{name: result.get(name, {}) for name in ("measured", "earlier", "families")})

    def renew(self, family: str, part: str, found: Figures, *, keeps: bool) -> None:
        """Take what was found of a part today, and keep, if so, those networks that were not."""
        parts, days = self.families.setdefault(family, {}), self.measured.setdefault(family, {})
        before, earlier = parts.get(part, {}), self.earlier.get(family, {}).pop(part, {})
        if keeps:
            missing = sorted({*_names(before)} - {*_names(found)})
            if missing:
                own = {name: earlier.get(name, days[part]) for name in missing}
                self.earlier.setdefault(family, {})[part] = own
            found = _kept(before, found)
        parts[part], days[part] = found, datetime.now(UTC).date().isoformat()


def _kept(before: Figures, found: Figures) -> Figures:
    """`found`, and of `before` every network that it lacks.

    A part is nested by method and budget; a network's own figures are taken as a whole.
    """
    if _is_network(before) or _is_network(found):
        return found
    return before | {
        name: _kept(before[name], own) if isinstance(own, dict) and name in before else own
        for name, own in found.items()
    }


def _names(figures: Mapping[str, Any], *, above: str = "") -> Iterator[str]:
    """Of all networks, as `method, budget`."""
    for name, own in figures.items():
        if isinstance(own, dict):
            if _is_network(own):
                yield f"{above}{name}"
            else:
                yield from _names(own, above=f"{above}{name}, ")


def _is_network(figures: Mapping[str, Any]) -> bool:
    """Only among the figures of one are there lists."""
    return any(isinstance(own, list) for own in figures.values())
