"""Fetch the header of a file of weights, by ranges of its bytes, before the file itself."""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from registry.checkpoints.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES
from registry.disk import refusing_full_disk
from registry.errors import InvalidCheckpoint, Unavailable
from registry.fetching.remote_file import MAX_ATTEMPTS, telling_errors
from registry.imports import gguf_header
from registry.ingest import gguf_file

if TYPE_CHECKING:
    import httpx2
    from _typeshed import WriteableBuffer

PARTIAL = 206
# Of folders that show what is fetched by its headers.
PREFIX = "headers-"
# Bytes of what is no safetensors, such as a pointer of Git LFS, that tell what it is.
BEGINNING_BYTES = 64
# A header of GGUF tells its length nowhere: each request asks for this times what is there. One of
# 10 MB, with the tokens of a large vocabulary, takes seven.
FIRST_BYTES = 4096
GROWTH = 4


def fetch(
    url: str, path: Path, *, size: int | None, what: str, headers: Mapping[str, str], hint: str
) -> bool:
    """Write a file of `size` bytes to `path` that begins with the header of the file at `url`.

    The rest is a hole, which takes no room. Returns False, and writes nothing, if the size is not
    known or the server sends whole files only. Raises NotFound, Forbidden with the `hint`,
    OutOfSpace, Unavailable, and InvalidCheckpoint for a GGUF header that cannot be read.
    """
    if size is None:
        return False
    remote = _RemoteFile(url, headers, size, what)
    with refusing_full_disk(path.parent), telling_errors(what, hint=hint):
        try:
            _reach_end_of_header(remote, path.name)
        except _SendsWholeFilesOnly:
            return False
        with path.open("wb") as file:
            file.write(remote.data)
            file.truncate(size)
    return True


def _reach_end_of_header(remote: "_RemoteFile", name: str) -> None:
    if name.endswith(gguf_file.SUFFIX):
        with io.BufferedReader(remote, FIRST_BYTES) as file:
            gguf_header.read_from(file, size=remote.size, name=name)
        return
    remote.reach(LENGTH_BYTES)
    if remote.size < LENGTH_BYTES:
        return
    (length,) = struct.unpack("<Q", remote.data)
    remote.reach(LENGTH_BYTES + length if length <= MAX_HEADER_BYTES else BEGINNING_BYTES)


class _SendsWholeFilesOnly(Exception):
    """A server does not answer a range with a part."""


class _RemoteFile(io.RawIOBase):
    """A file at a URL, read from its beginning. `data` is what has been fetched of it."""

    def __init__(self, url: str, headers: Mapping[str, str], size: int, what: str) -> None:
        self._url, self._headers, self._what = url, headers, what
        self.size = size
        self.data = bytearray()
        self._position = 0

    def reach(self, end: int) -> None:
        """Fetch what is missing before byte `end`, or before the end of the file."""
        import httpx2

        end, num_failures, reason = min(end, self.size), 0, "too few bytes came"
        while (reached := len(self.data)) < end:
            try:
                self._ask(end)
            except httpx2.TransportError as error:
                reason = str(error) or type(error).__name__
            num_failures = num_failures + 1 if len(self.data) == reached else 0
            if num_failures == MAX_ATTEMPTS:
                raise Unavailable(f"the header of {self._what} did not arrive: {reason}")

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        end = min(self._position + len(view), self.size)
        if end > MAX_HEADER_BYTES:
            raise InvalidCheckpoint(
                f"{self._what} has a header of more than {MAX_HEADER_BYTES} bytes"
            )
        if end > len(self.data):
            self.reach(max(end, GROWTH * len(self.data)))
        count = end - self._position
        view[:count] = self.data[self._position : end]
        self._position = end
        return count

    def _ask(self, end: int) -> None:
        """Fetch bytes before `end` in one request."""
        from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
        from huggingface_hub.utils._http import hf_raise_for_status, http_stream_backoff

        start = len(self.data)
        with http_stream_backoff(
            "GET",
            self._url,
            headers={**self._headers, "Range": f"bytes={start}-{end - 1}"},
            timeout=HF_HUB_DOWNLOAD_TIMEOUT,
            retry_on_exceptions=(),
        ) as got:
            hf_raise_for_status(got)
            if not _is_part(got, start):
                raise _SendsWholeFilesOnly
            for chunk in got.iter_bytes():
                self.data += chunk[: end - len(self.data)]
                if len(self.data) == end:
                    break


def _is_part(answer: "httpx2.Response", start: int) -> bool:
    content = answer.headers.get("Content-Range", "")
    return answer.status_code == PARTIAL and content.startswith(f"bytes {start}-")
