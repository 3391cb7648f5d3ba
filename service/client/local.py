"""The client of the service that runs on this machine's data folder."""

from registry.errors import NotFound
from registry.settings import settings
from service import home
from service.client.client import Client


def connect() -> Client:
    """Return a client of the running service, with the key of this installation.

    Raises NotFound when no service runs on the data folder.
    """
    holder = home.holder(settings().home)
    if holder is None:
        raise NotFound("no service runs on this data folder; start it with `./nexusmix up`")
    return Client(holder.address, key=key())


def key() -> str:
    """Return the key of this installation. Raises NotFound before the service first starts."""
    try:
        return settings().key_path.read_text().strip()
    except FileNotFoundError:
        raise NotFound("this installation has no key yet; `./nexusmix up` makes it") from None
