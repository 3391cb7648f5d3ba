"""What a fetch gives, and how far it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.checkpoints.manifests import Origin

NAME_DOCUMENTS = "name a file of documents, or a text, with --documents"
# Takes the bytes of weights that are there, and those of all.
OnProgress = Callable[[int, int], None]
# Takes the path of what is fetched before its weights are: their files hold the headers alone.
# Raises what refuses it.
CheckHeaders = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was fetched, a folder or a GGUF file, and where it is from."""

    path: Path
    origin: Origin


def progress_text(num_there: int, num_bytes: int) -> str:
    """Format how far a fetch is: 12 of 34 MB fetched."""
    return f"{num_there / 1e6:.0f} of {num_bytes / 1e6:.0f} MB fetched"
