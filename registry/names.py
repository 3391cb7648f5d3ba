"""Check names of users, and read references to a version: `name` or `name@number`."""

import re

from registry.errors import InvalidInput, Problem

# Valid in addresses, in file names and before the `@` of a reference.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
FORM = "1 to 63 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit"
DIGEST = re.compile(r"[0-9a-f]{64}")


def check_name(name: str, *, at: str) -> str:
    """Return a valid name unchanged. Raises InvalidInput with the pointer `at`."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a name: take {FORM}", problems=(Problem(at, f"take {FORM}"),)
        )
    return name


def is_digest(text: str) -> bool:
    """Tell whether a text is a SHA-256 in lower-case hexadecimal."""
    return DIGEST.fullmatch(text) is not None


def parse_ref(ref: str) -> tuple[str, int | None]:
    """Split a reference: `"law@3"` gives `("law", 3)`, `"law"` gives `("law", None)`.

    Raises InvalidInput if it is neither.
    """
    name, at, number = ref.partition("@")
    if not NAME.fullmatch(name) or (at and not re.fullmatch(r"[1-9][0-9]{0,8}", number)):
        raise InvalidInput(f"{ref!r} is neither a name nor name@number: a name has {FORM}")
    return name, int(number) if at else None
