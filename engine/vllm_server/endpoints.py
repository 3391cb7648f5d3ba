"""Where engines listen, and how to reach them: a Unix socket, or a port that asks for a key.

An engine on this machine listens on a socket that only this user can open, `unix:PATH`. One that
Ray places on a node listens on that node's address, `http://HOST:PORT`, and asks for the
key of this installation's engines.
"""

import os
import secrets
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

import httpx

from registry.settings import settings

UNIX = "unix:"
# The service of another host, which passes a request on to its own engine.
PEER = "peer:"
# What requests through a socket name as their host.
SOCKET_HOST = "http://engine"
# In vLLM's answer with status 500 when the process that computes has ended before its server.
CORE_HAS_DIED = b"EngineCore encountered an issue"


def url(address: str) -> str:
    """Return the URL of an engine, without a path."""
    return SOCKET_HOST if address.startswith(UNIX) else address.removeprefix(PEER)


def has_died(status: int, content: bytes) -> bool:
    """Return whether an engine's answer says that the process that computes has ended."""
    return status == HTTPStatus.INTERNAL_SERVER_ERROR and CORE_HAS_DIED in content


def socket_path(address: str) -> str | None:
    """Return the path of an engine's socket; None for one that listens on a port."""
    return address.removeprefix(UNIX) if address.startswith(UNIX) else None


def headers(address: str) -> dict[str, str]:
    """Return the headers that an engine asks for."""
    key = None if address.startswith((UNIX, PEER)) else find_key()
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def client(address: str, *, timeout: float) -> httpx.Client:
    """Return a client for one engine."""
    return httpx.Client(
        base_url=url(address),
        headers=headers(address),
        timeout=timeout,
        transport=httpx.HTTPTransport(uds=socket_path(address)),
    )


def find_key() -> str | None:
    """Return the key of this installation's engines, or None when none needs one."""
    try:
        return key_path().read_text().strip()
    except FileNotFoundError:
        return None


def key_path() -> Path:
    """Return the file of the key of this installation's engines."""
    return settings().home.absolute() / "engine-key"


def make_key() -> None:
    """Make the key of this installation's engines, unless there is one."""
    if find_key() is not None:
        return
    key_path().parent.mkdir(parents=True, exist_ok=True)
    incoming = key_path().with_name(f"engine-key.{secrets.token_hex(4)}")
    with os.fdopen(os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    with suppress(FileExistsError):
        os.link(incoming, key_path())  # the first of several processes wins
    incoming.unlink()


class Transport(httpx.AsyncBaseTransport):
    """Sends each request to the engine that its extension `engine` names, by address."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._limits = limits
        self._ports = httpx.AsyncHTTPTransport(limits=limits)
        self._sockets: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raises httpx.TransportError."""
        path = socket_path(request.extensions["engine"])
        if path is None:
            return await self._ports.handle_async_request(request)
        if path not in self._sockets:
            await self._close_gone()
            self._sockets[path] = httpx.AsyncHTTPTransport(uds=path, limits=self._limits)
        return await self._sockets[path].handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._ports, *self._sockets.values()):
            await transport.aclose()

    async def _close_gone(self) -> None:
        """Forget engines whose sockets were removed."""
        for path in [path for path in self._sockets if not os.path.exists(path)]:
            await self._sockets.pop(path).aclose()
