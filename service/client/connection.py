"""HTTP for the client: repeats a request when the line breaks, and raises problems as errors."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import httpx
from httpx_sse import EventSource

from registry import errors
from registry.blobs.blobs import CHUNK_BYTES
from registry.errors import NexusmixError, Problem, Unavailable
from registry.ingest.sources import Sendable
from service.error_codes import code_of
from service.schemas.checkpoints import MissingBlob
from service.schemas.mixes import EventBody

API = "/api/v1"
MAX_ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.25
# As many as the service gives at once.
PAGE_ENTRIES = 100
# The server, or a part of it, is away for a moment: send the request again.
RETRIED = {502, 503, 504}
# Longer than the 15 seconds between the pings of an event stream.
TIMEOUT = httpx.Timeout(60.0, connect=10.0)

KINDS = {
    code_of(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, NexusmixError)
}


class Connection:
    """A connection to one service. It may send any request twice: all requests can be repeated.

    All methods raise the error that the service raised, and Unavailable when it does not answer.
    """

    def __init__(self, address: str, *, key: str) -> None:
        self._authorization = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, timeout=TIMEOUT)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON answer to a GET."""
        return self._request("GET", path, params=params).json()

    def get_bytes(self, path: str) -> bytes:
        """Return the answer to a GET as bytes."""
        return self._request("GET", path).content

    def entries(self, path: str, **params: Any) -> Iterator[Any]:
        """Yield the entries of a list, page after page, up to its end."""
        page: dict[str, Any] = {"has_more": True}
        while page["has_more"]:
            page = self.get(path, limit=PAGE_ENTRIES, **params)
            yield from page["data"]
            if page["has_more"]:
                params["after"] = page["data"][-1]["id"]

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the JSON answer to a POST, however long it takes: completing an upload is slow."""
        timeout = httpx.Timeout(None, connect=10.0)
        return self._request("POST", path, json=body, headers=headers, timeout=timeout).json()

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON answer to a PUT."""
        return self._request("PUT", path, json=body).json()

    def has_blob(self, digest: str) -> bool:
        """Return whether the service has a blob."""
        try:
            self._request("HEAD", f"/blobs/{digest}")
        except errors.NotFound:
            return False
        return True

    def send(self, blob: MissingBlob, source: Sendable, *, on_sent: Callable[[int], None]) -> None:
        """PUT a blob where the service wants it; `on_sent` gets the number of bytes sent so far."""
        # A presigned address of an object store needs no key, and must not see ours.
        own_headers = self._authorization if blob.url.startswith("/") else {}
        headers = own_headers | blob.headers | {"Content-Length": str(source.num_bytes)}

        def put() -> httpx.Response:
            return self._http.put(blob.url, content=_counted(source, on_sent), headers=headers)

        _retry(put)

    def fetch(
        self, path: str, file: BinaryIO, *, num_bytes: int, on_bytes: Callable[[int], None]
    ) -> None:
        """GET `num_bytes` into a file, and continue where the line broke.

        `on_bytes` gets the size of every chunk.
        """
        for chunk in self.read(path, start=file.tell(), end=num_bytes):
            file.write(chunk)
            on_bytes(len(chunk))

    def read(self, path: str, *, start: int, end: int) -> Iterator[bytes]:
        """GET the bytes from `start` to before `end`, and continue where the line broke."""
        reached, num_failures = start, 0
        while reached < end:
            headers = self._authorization | {"Range": f"bytes={reached}-{end - 1}"}
            try:
                with self._http.stream("GET", API + path, headers=headers) as response:
                    if response.is_error:
                        response.read()
                    _raise_error(response)
                    for chunk in response.iter_raw(CHUNK_BYTES):
                        reached += len(chunk)
                        num_failures = 0
                        yield chunk
            except httpx.TransportError as error:
                num_failures += 1
                if num_failures == MAX_ATTEMPTS:
                    raise Unavailable(f"the service does not answer: {error}") from error
                pause(num_failures)

    def events(self, path: str, *, last_id: int) -> Iterator[EventBody]:
        """Yield the server-sent events after `last_id`, until the service ends the stream.

        Raises httpx.TransportError when the line breaks.
        """
        headers = self._authorization | {"Last-Event-ID": str(last_id)}
        with self._http.stream("GET", API + path, headers=headers) as response:
            if response.is_error:
                response.read()
                _raise_error(response)
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            for event in EventSource(response).iter_sse():
                # A ping has no data.
                if event.data:
                    yield EventBody.model_validate_json(event.data)

    def delete(self, path: str) -> Any:
        """Return the JSON answer to a DELETE."""
        return self._request("DELETE", path).json()

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> httpx.Response:
        headers = self._authorization | dict(headers or {})

        def send() -> httpx.Response:
            return self._http.request(method, API + path, headers=headers, **arguments)

        return _retry(send)


def pause(attempt: int) -> None:
    """Sleep after a failed attempt, twice as long each time. The caller limits the attempts."""
    time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))


def _retry(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send a request up to MAX_ATTEMPTS times, until it is answered."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            response = send()
        except httpx.TransportError as error:
            if attempt == MAX_ATTEMPTS:
                raise Unavailable(f"the service does not answer: {error}") from error
        else:
            if response.status_code not in RETRIED or attempt == MAX_ATTEMPTS:
                _raise_error(response)
                return response
        pause(attempt)
    raise AssertionError("the last attempt returns or raises")


def _raise_error(response: httpx.Response) -> None:
    """Raise the error in a problem body (RFC 9457)."""
    if not response.is_error:
        return
    try:
        problem = response.json()
        kind = KINDS.get(problem["code"], NexusmixError)
        problems = tuple(Problem(**entry) for entry in problem["errors"])
        raise kind(problem["detail"], problems=problems)
    except (ValueError, KeyError, TypeError):
        pass  # the answer is not ours: an object store, or a proxy in between
    kind = errors.NotFound if response.status_code == httpx.codes.NOT_FOUND else Unavailable
    method, host = response.request.method, response.url.host
    raise kind(f"{method} at {host} was answered {response.status_code}: {response.text[:200]}")


def _counted(source: Sendable, on_sent: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the chunks of `source`, and call `on_sent` with the bytes so far after each."""
    num_sent = 0
    for chunk in source.chunks():
        yield chunk
        num_sent += len(chunk)
        on_sent(num_sent)
