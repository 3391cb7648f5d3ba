"""The checkpoint that a command is given: a folder of this computer, or an address to fetch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.checkpoints.manifests import Origin
    from registry.fetching.addresses import Address, PeerAddress
    from registry.fetching.fetched import CheckHeaders
    from service.client.client import Client

FROM_HELP = (
    "Fetch it in place of a folder. From the Hugging Face Hub: hf:OWNER/NAME, with @REVISION or"
    " :FILE.gguf behind it where one of several is meant; HF_TOKEN opens what is not public. From"
    " elsewhere: the https:// address of a GGUF file."
)
PEER_HELP = (
    " From another nexusmix that has the same seed, only what this one lacks:"
    " nexusmix:https://HOST:PORT/NAME@VERSION."
)
KEY_FILE_HELP = (
    "File with a key of the other nexusmix, which may read. NEXUSMIX_FROM_KEY can hold it, too."
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


def local(
    given: "Path | Address",
    show: Callable[[str], None],
    *,
    check: "CheckHeaders",
    needs_documents: bool = False,
) -> "tuple[Path, Origin | None]":
    """Return the path of what is given, fetched if it has to be, and where it is from.

    Weights are not fetched of what `check` refuses by its headers, and of what has no sample
    documents if it `needs_documents`. A folder of this computer is not checked. Raises InvalidInput
    for another nexusmix: its versions are copied, not fetched.
    """
    from registry.errors import InvalidInput
    from registry.fetching import url_file
    from registry.fetching.addresses import HubAddress, PeerAddress
    from registry.fetching.fetched import NAME_DOCUMENTS, progress_text
    from registry.fetching.hub import Hub
    from registry.settings import settings

    if isinstance(given, Path):
        return given, None

    def on_progress(num_there: int, num_bytes: int) -> None:
        show(f"{given}: {progress_text(num_there, num_bytes)}")

    show(f"looking at {given}")
    cache = settings().imports_path
    if isinstance(given, PeerAddress):
        raise InvalidInput("only experts come from another nexusmix: give its seed as a folder")
    if isinstance(given, HubAddress):
        hub = Hub(endpoint=settings().hub_endpoint)
        fetched = hub.fetch(
            given, cache, needs_documents=needs_documents, check=check, on_progress=on_progress
        )
    elif needs_documents:
        raise InvalidInput(f"a GGUF file has no documents: {NAME_DOCUMENTS}")
    else:
        fetched = url_file.fetch(given, cache, check=check, on_progress=on_progress)
    show("reading what was fetched")
    return fetched.path, fetched.origin


def peer(address: "PeerAddress", key_file: Path | None) -> "Client":
    """Return a client of another nexusmix. Raises InvalidInput without a key for it."""
    from registry.errors import InvalidInput
    from registry.settings import settings
    from service import key_format
    from service.client.client import Client

    key = settings().from_key
    if key_file is not None:
        if not key_file.is_file():
            raise InvalidInput(f"there is no file {key_file}")
        return Client(address.url, key=key_format.read_file(key_file))
    if key is None:
        raise InvalidInput(
            f"{address} is read with a key of that nexusmix: name a file with --from-key-file, or"
            " set NEXUSMIX_FROM_KEY"
        )
    return Client(address.url, key=key_format.check(key.get_secret_value()))
