"""Formats bytes, seconds and counts for people, and reads bytes as they write them."""

import re

from registry.errors import InvalidInput

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]?B)", re.IGNORECASE)


def size(num_bytes: float) -> str:
    """Format bytes in decimal units with three digits: 269 MB."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def read_size(text: str, *, at: str) -> int:
    """Read bytes in decimal units: 269 MB, 5GB. Raises InvalidInput that names the option `at`."""
    found = SIZE.fullmatch(text.strip())
    num_bytes = float(found[1]) * UNITS[found[2].upper()] if found else 0
    if num_bytes < 1:
        raise InvalidInput(f"{at} is {text!r}, expected a size such as 500MB or 5GB")
    return int(num_bytes)


def duration(seconds: float) -> str:
    """Format seconds: 12.3 s, or 4 min 05 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: float) -> str:
    """Format a count with three digits: 135 M."""
    value = float(number)
    for unit in ("", " k", " M"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} G"


def between(low: float, high: float) -> str:
    """Format a range of seconds; one number if both ends look the same."""
    first, last = duration(low), duration(high)
    return first if first == last else f"{first} to {last}"
