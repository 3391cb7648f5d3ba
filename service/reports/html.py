"""Renders templates to HTML, with the filters that print numbers and times."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.quantities import between, count, duration, size

TEMPLATES = Path(__file__).parent / "templates"

# The color of a state. A state that is not listed is in progress.
TONES = {
    "good": {"ready", "succeeded", "embedded", "passed"},
    "bad": {"failed", "parked"},
    "quiet": {"asleep", "queued", "cancelled", "stopped", "retired", "waiting", "uploading"},
}


def moment(time: datetime) -> str:
    """Format a time: `1 Dec 2026, 09:30 UTC`."""
    return time.strftime("%d %b %Y, %H:%M UTC").lstrip("0")


def tone(state: str) -> str:
    """Return the color class of a state: good, bad, quiet or busy."""
    return next((tone for tone, states in TONES.items() if state in states), "busy")


def environment(folders: Sequence[Path]) -> Environment:
    """Return a Jinja environment that looks for templates in `folders`, in this order."""
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "size": size,
        "duration": duration,
        "between": lambda seconds: between(seconds.low, seconds.high),
        "count": count,
        "moment": moment,
        "tone": tone,
        "thousands": lambda number: f"{number:,}",
    }
    environment.filters.update(filters)
    return environment


ENVIRONMENT = environment([TEMPLATES])


def render(template: str, **context: Any) -> str:
    """Return a report as one HTML document that loads no other file."""
    return ENVIRONMENT.get_template(template).render(context)
