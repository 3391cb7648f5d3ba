"""Formats bytes, seconds and counts for people."""


def size(num_bytes: float) -> str:
    """Format bytes in decimal units with three digits: 269 MB."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


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
