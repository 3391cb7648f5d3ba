"""The checkpoint that a command is given: a folder of this computer, or an address to fetch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.checkpoints.manifests import Origin
    from registry.fetching.addresses import HubAddress

FROM_HELP = (
    "Fetch it from the Hugging Face Hub in place of a folder: hf:OWNER/NAME, with @REVISION or"
    " :FILE.gguf behind it where one of several is meant. HF_TOKEN opens what is not public."
)


def chosen(folder: Path | None, address: str | None) -> "Path | HubAddress":
    """Return what is given. Raises InvalidInput unless it is one of the two, and sound."""
    from registry.errors import InvalidInput
    from registry.fetching import addresses

    if folder is not None and address is None:
        return folder
    if address is not None and folder is None:
        return addresses.parse(address)
    raise InvalidInput("give either a folder or an address with --from")


def local(given: "Path | HubAddress", show: Callable[[str], None]) -> "tuple[Path, Origin | None]":
    """Return the path of what is given, fetched if it has to be, and where it is from."""
    from registry.fetching.hub import Hub
    from registry.settings import settings

    if isinstance(given, Path):
        return given, None

    def on_progress(num_there: int, num_bytes: int) -> None:
        show(f"{given}: {num_there / 1e6:.0f} of {num_bytes / 1e6:.0f} MB fetched")

    show(f"looking at {given}")
    hub = Hub(endpoint=settings().hub_endpoint)
    fetched = hub.fetch(given, settings().imports_path, on_progress=on_progress)
    show("reading what was fetched")
    return fetched.path, fetched.origin
