"""Callbacks by which long work reports its progress to its caller."""

from collections.abc import Callable

# Takes one line of text.
OnMessage = Callable[[str], None]
# Takes the name of the current work, the number of finished parts, and the number of all parts.
OnCount = Callable[[str, int, int], None]
