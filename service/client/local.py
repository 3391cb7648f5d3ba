"""The client of the service that runs on this machine's data folder."""

from registry.errors import NotFound
from registry.settings import settings
from service import home, key_format
from service.client.client import Client
from service.client.keys import KeyClient


def connect() -> Client:
    """Return a client of the running service, with the key of this installation.

    Raises NotFound when no service runs on the data folder.
    """
    return Client(_address(), key=key())


def key() -> str:
    """Return the key of this installation. Raises NotFound before the service first starts, and
    InvalidInput when its file holds no key."""
    return key_format.read_file(settings().key_path)


def key_client() -> KeyClient:
    """Return a client of the running service that manages keys. Raises NotFound as `connect`."""
    return KeyClient(_address(), key=key())


def _address() -> str:
    holder = home.holder(settings().home)
    if holder is None:
        raise NotFound("no service runs on this data folder; start it with `nexusmix up`")
    return holder.address
