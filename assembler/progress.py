"""How long work reports its progress to whoever started it."""

from collections.abc import Callable

# Takes one line for people.
OnMessage = Callable[[str], None]
# Takes what is being done, how much of it is done, and how much there is.
OnCount = Callable[[str, int, int], None]
