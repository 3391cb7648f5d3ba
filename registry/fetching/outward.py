"""Keep what a server fetches for strangers outside: only public addresses are connected to.

A name is resolved once, all its addresses are looked at, and one of these is connected to. Each
request is looked at in this way, so a redirect cannot lead inwards either.
"""

import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import httpx2
import huggingface_hub
from huggingface_hub.utils import _http

from registry.errors import TimedOut, Unavailable
from registry.fetching import public_hosts

MAX_REDIRECTS = 5
TIMEOUT = httpx2.Timeout(30.0)


@contextmanager
def only_outward(
    allowed: Collection[str], *, bytes_per_second: int, grace_seconds: float
) -> Iterator[None]:
    """Let the library connect only to what `public_hosts.check` takes, and to public addresses.

    An answer that comes slower than `bytes_per_second` on average, after `grace_seconds`, is given
    up with TimedOut.
    """
    transport = _Outward(allowed, bytes_per_second, grace_seconds)

    def make_client() -> httpx2.Client:
        # The environment could name proxies, which resolve names anew, and a file of passwords.
        return httpx2.Client(
            transport=transport,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=TIMEOUT,
            trust_env=False,
        )

    huggingface_hub.set_client_factory(make_client)
    try:
        yield
    finally:
        # Public names of the library set a factory, and do not tell the one before.
        huggingface_hub.set_client_factory(_http.default_client_factory)


class _Outward(httpx2.BaseTransport):
    def __init__(
        self, allowed: Collection[str], bytes_per_second: int, grace_seconds: float
    ) -> None:
        self._allowed = set(allowed)
        self._pace = bytes_per_second, grace_seconds
        # A connection that is kept is found by its IP address, and another name may share that.
        self._inner = httpx2.HTTPTransport(limits=httpx2.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.host
        onward = httpx2.Request(
            request.method,
            request.url.copy_with(host=self._address(request.url)),
            headers=request.headers,
            stream=request.stream,
            # The certificate must be of the name.
            extensions={**request.extensions, "sni_hostname": host},
        )
        answer = self._inner.handle_request(onward)
        assert isinstance(answer.stream, httpx2.SyncByteStream)
        return httpx2.Response(
            answer.status_code,
            headers=answer.headers,
            stream=_Paced(answer.stream, host, *self._pace),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._inner.close()

    def _address(self, url: httpx2.URL) -> str:
        """Return what is connected to: an IP address that was looked at, or an allowed host.

        Raises InvalidInput for a host that is not public, and Unavailable for an unknown name.
        """
        if public_hosts.check(str(url), allowed=self._allowed):
            return url.host
        try:
            found = socket.getaddrinfo(url.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"{url.host!r} cannot be found: {error}") from error
        addresses = [str(place[0]) for *_, place in found]
        if not addresses or not all(map(public_hosts.is_public, addresses)):
            raise public_hosts.inward(url.host)
        return addresses[0]


class _Paced(httpx2.SyncByteStream):
    """The bytes of an answer, as long as they come fast enough."""

    def __init__(
        self, stream: httpx2.SyncByteStream, host: str, bytes_per_second: int, grace_seconds: float
    ) -> None:
        self._stream, self._host = stream, host
        self._least, self._grace = bytes_per_second, grace_seconds

    def __iter__(self) -> Iterator[bytes]:
        began, num_bytes = time.monotonic(), 0
        for chunk in self._stream:
            num_bytes += len(chunk)
            seconds = time.monotonic() - began
            if seconds > self._grace and num_bytes < self._least * seconds:
                raise TimedOut(
                    f"{self._host} sends {num_bytes / seconds:.0f} bytes a second, at least"
                    f" {self._least} are expected"
                )
            yield chunk

    def close(self) -> None:
        self._stream.close()
