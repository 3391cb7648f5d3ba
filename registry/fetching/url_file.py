"""Fetch a GGUF file from any address."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.checkpoints.manifests import Origin
from registry.fetching import remote_file, remote_header
from registry.fetching.addresses import UrlAddress
from registry.fetching.fetched import CheckHeaders, Fetched, OnProgress
from registry.fetching.remote_file import NOTHING, Expected
from registry.ingest.sources import Source

NO_KEY = "fetch what needs a key yourself, and give the file"
HEAD_SECONDS = 30.0


def fetch(
    address: UrlAddress,
    cache: Path,
    *,
    max_bytes: int | None = None,
    check: CheckHeaders | None = None,
    on_progress: OnProgress = lambda *_: None,
) -> Fetched:
    """Fetch a file to a folder of its own below `cache`.

    A server that tells size and version of the file lets it go on where it ended. If it also sends
    parts of it, what `check` refuses by the header is refused before the weights are fetched.
    Raises NotFound, Forbidden, TooLarge, Unavailable, OutOfSpace and InvalidCheckpoint, as
    `remote_file.fetch`.
    """
    with remote_file.quietly():
        version, expected = _look(address)
        path = cache / "urls" / version / address.file
        num_bytes, reached = expected.size or 0, remote_file.arrived(path)
        remote_file.check_size(expected.size, what=str(address), max_bytes=max_bytes)
        if check is not None and not path.exists():
            _check_header(address, path, expected, check)

        def on_bytes(count: int) -> None:
            nonlocal reached
            reached += count
            on_progress(reached, max(num_bytes, reached))

        remote_file.fetch(
            address.url,
            path,
            what=str(address),
            headers=remote_file.HEADERS,
            expected=expected,
            max_bytes=max_bytes,
            hint=NO_KEY,
            on_bytes=on_bytes,
        )
    origin = Origin(address=str(address), digest=Source.whole(path).digest())
    return Fetched(path=path, origin=origin)


def _check_header(address: UrlAddress, path: Path, expected: Expected, check: CheckHeaders) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=remote_header.PREFIX) as name:
        shown = Path(name, path.name)
        if remote_header.fetch(
            address.url,
            shown,
            size=expected.size,
            what=str(address),
            headers=remote_file.HEADERS,
            hint=NO_KEY,
        ):
            check(shown)


def _look(address: UrlAddress) -> tuple[str, Expected]:
    """Return a name for what lies there today, and its size.

    Without a version, from a server that answers no HEAD, the name is of the address.
    """
    from huggingface_hub import get_session

    with remote_file.telling_errors(str(address), hint=NO_KEY):
        answer = get_session().head(
            address.url, headers=remote_file.HEADERS, follow_redirects=True, timeout=HEAD_SECONDS
        )
    version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    size = answer.headers.get("Content-Length", "")
    if answer.is_error or version is None or not size.isdecimal():
        return _key(address.url), NOTHING
    return _key(address.url, version, size), Expected(size=int(size))


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
