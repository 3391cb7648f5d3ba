"""Names of errors in answers, for the server that writes them and the client that reads them."""

import re

from registry.errors import NexusmixError


def code_of(kind: type[NexusmixError]) -> str:
    """Return the class name in snake case, `invalid_checkpoint`, for programs to compare."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
