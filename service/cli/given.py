"""The checkpoint that a command is given: a folder of this computer, or an address to fetch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.checkpoints.manifests import Origin
    from registry.fetching.addresses import Address

FROM_HELP = (
    "Fetch it in place of a folder. From the Hugging Face Hub: hf:OWNER/NAME, with @REVISION or"
    " :FILE.gguf behind it where one of several is meant; HF_TOKEN opens what is not public. From"
    " elsewhere: the https:// address of a GGUF file."
)


def chosen(folder: Path | None, address: str | None) -> "Path | Address":
    """Return what is given. Raises InvalidInput unless it is one of the two, and sound."""
    from registry.errors import InvalidInput
    from registry.fetching import addresses

    if folder is not None and address is None:
        return folder
    if address is not None and folder is None:
        return addresses.parse(address)
    raise InvalidInput("give either a folder or an address with --from")


def local(given: "Path | Address", show: Callable[[str], None]) -> "tuple[Path, Origin | None]":
    """Return the path of what is given, fetched if it has to be, and where it is from."""
    from registry.fetching import url_file
    from registry.fetching.addresses import UrlAddress
    from registry.fetching.fetched import progress_text
    from registry.fetching.hub import Hub
    from registry.settings import settings

    if isinstance(given, Path):
        return given, None

    def on_progress(num_there: int, num_bytes: int) -> None:
        show(f"{given}: {progress_text(num_there, num_bytes)}")

    show(f"looking at {given}")
    cache = settings().imports_path
    if isinstance(given, UrlAddress):
        fetched = url_file.fetch(given, cache, on_progress=on_progress)
    else:
        hub = Hub(endpoint=settings().hub_endpoint)
        fetched = hub.fetch(given, cache, on_progress=on_progress)
    show("reading what was fetched")
    return fetched.path, fetched.origin
