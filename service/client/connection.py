"""HTTP with a service, for its client: a cut connection is tried again, problems become errors."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import httpx
from httpx_sse import EventSource

from registry import errors
from registry.blobs.blobs import CHUNK_BYTES
from registry.checkpoints.checkpoint_folder import Source
from registry.errors import NexusmixError, Problem, Unavailable
from service.error_codes import code_of
from service.schemas.checkpoints import MissingBlob
from service.schemas.mixes import EventBody

API = "/api/v1"
MAX_ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.25
# The server, or a part of it, is away for a moment.
RETRIED = {502, 503, 504}
# In streams of events a ping comes every 15 seconds.
TIMEOUT = httpx.Timeout(60.0, connect=10.0)

KINDS = {
    code_of(kind): kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, NexusmixError)
}


class Connection:
    """Every request may be sent twice: all that a client asks for is safe to repeat."""

    def __init__(self, address: str, *, key: str) -> None:
        self._authorization = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=address, timeout=TIMEOUT)

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """Raises the error that the service raised, or Unavailable when it stays away."""
        return self._request("GET", path, params=params).json()

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Raises what `get` raises. Takes its time: completing an upload reads all of it."""
        timeout = httpx.Timeout(None, connect=10.0)
        return self._request("POST", path, json=body, headers=headers, timeout=timeout).json()

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Raises what `get` raises."""
        return self._request("PUT", path, json=body).json()

    def has_blob(self, digest: str) -> bool:
        try:
            self._request("HEAD", f"/blobs/{digest}")
        except errors.NotFound:
            return False
        return True

    def send(self, blob: MissingBlob, source: Source, *, on_sent: Callable[[int], None]) -> None:
        """PUT a blob to where it is wanted; `on_sent` hears how many of its bytes are on their way.

        Raises what `get` raises.
        """
        # A presigned address carries its own right to write; our key is nobody else's business.
        ours = self._authorization if blob.url.startswith("/") else {}
        headers = ours | blob.headers | {"Content-Length": str(source.num_bytes)}

        def put() -> httpx.Response:
            return self._http.put(blob.url, content=_counted(source, on_sent), headers=headers)

        _persistently(put)

    def fetch(
        self, path: str, file: BinaryIO, *, num_bytes: int, on_bytes: Callable[[int], None]
    ) -> None:
        """GET `num_bytes` into a file; after a cut it goes on where it was.

        `on_bytes` hears the size of every chunk. Raises what `get` raises.
        """
        num_failures = 0
        while file.tell() < num_bytes:
            headers = self._authorization | {"Range": f"bytes={file.tell()}-"}
            try:
                with self._http.stream("GET", API + path, headers=headers) as response:
                    if response.is_error:
                        response.read()
                    _check(response)
                    for chunk in response.iter_raw(CHUNK_BYTES):
                        file.write(chunk)
                        on_bytes(len(chunk))
                        num_failures = 0
            except httpx.TransportError as error:
                num_failures += 1
                if num_failures == MAX_ATTEMPTS:
                    raise Unavailable(f"the service does not answer: {error}") from error
                pause(num_failures)

    def events(self, path: str, *, last_id: int) -> Iterator[EventBody]:
        """Server-sent events behind `last_id`, until the service ends them or the line is cut.

        Raises httpx.TransportError for the cut.
        """
        headers = self._authorization | {"Last-Event-ID": str(last_id)}
        with self._http.stream("GET", API + path, headers=headers) as response:
            if response.is_error:
                response.read()
                _check(response)
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            for event in EventSource(response).iter_sse():
                # A ping has no data.
                if event.data:
                    yield EventBody.model_validate_json(event.data)

    def delete(self, path: str) -> Any:
        """Raises what `get` raises."""
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

        return _persistently(send)


def pause(attempt: int) -> None:
    """Twice as long after each failed attempt. Raises nothing: the caller knows its limit."""
    time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))


def _persistently(send: Callable[[], httpx.Response]) -> httpx.Response:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            response = send()
        except httpx.TransportError as error:
            if attempt == MAX_ATTEMPTS:
                raise Unavailable(f"the service does not answer: {error}") from error
        else:
            if response.status_code not in RETRIED or attempt == MAX_ATTEMPTS:
                _check(response)
                return response
        pause(attempt)
    raise AssertionError("the last attempt returns or raises")


def _check(response: httpx.Response) -> None:
    """Raise the error that a problem body (RFC 9457) tells of."""
    if not response.is_error:
        return
    try:
        problem = response.json()
        kind = KINDS.get(problem["code"], NexusmixError)
        problems = tuple(Problem(**entry) for entry in problem["errors"])
        raise kind(problem["detail"], problems=problems)
    except (ValueError, KeyError, TypeError):
        pass  # not from us: an object store, or a proxy between
    kind = errors.NotFound if response.status_code == httpx.codes.NOT_FOUND else Unavailable
    method, host = response.request.method, response.url.host
    raise kind(f"{method} at {host} was answered {response.status_code}: {response.text[:200]}")


def _counted(source: Source, on_sent: Callable[[int], None]) -> Iterator[bytes]:
    num_sent = 0
    for chunk in source.chunks():
        yield chunk
        num_sent += len(chunk)
        on_sent(num_sent)
