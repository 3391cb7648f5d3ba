"""A small HTTP server on loopback that answers as the Hugging Face Hub does."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Larger files are stored as the Hub stores large ones: known by their SHA-256, at another address.
LARGE_BYTES = 4096
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repo:
    """A repository with one commit; `wrong` maps names to what is sent in place of the content."""

    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main", COMMIT)
    token: str | None = None
    is_gated: bool = False
    wrong: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, **about: Any) -> "Repo":
        return cls({path.name: path.read_bytes() for path in folder.iterdir()}, **about)


@dataclass
class TinyHub:
    """A running Hub, and the requests that it has answered: method, path and headers.

    `cuts` has numbers for files. Each cuts one answer: it ends after that number of bytes.
    """

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    # Where addresses of large files lead to; this server by default.
    cdn: str = ""
    # Paths, and where they lead to.
    redirects: dict[str, str] = field(default_factory=dict)
    # Whether parts of files are sent; otherwise each answer has the whole file.
    has_ranges: bool = True
    # Bytes of each file that were sent.
    sent: Counter[str] = field(default_factory=Counter)
    # Whether files have a version, so that a client can go on with one.
    has_versions: bool = True
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def asked(self, name: str) -> list[dict[str, str]]:
        """The headers of all requests for the bytes of a file."""
        return [
            headers
            for method, path, headers in self.requests
            if method == "GET" and path.endswith(f"/bytes/{name}")
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: TinyHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, dict(self.headers)))
        parts = path.strip("/").split("/")
        if path in self.hub.redirects:
            self._redirect(self.hub.redirects[path])
        elif parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), "/".join(parts[5:]))
        elif len(parts) == 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], parts[4])
        elif len(parts) == 4 and parts[2] == "bytes":
            self._bytes(self.hub.repos["/".join(parts[:2])], parts[3])
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _info(self, name: str, revision: str) -> None:
        repo = self._open(name, revision)
        if repo is not None:
            siblings = [_sibling(file, data) for file, data in repo.files.items()]
            body = {"id": name, "sha": COMMIT, "siblings": siblings}
            self._send(json.dumps(body).encode(), type="application/json")

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self._open(name, revision, for_files=True)
        if repo is None:
            return
        if file not in repo.files:
            return self._refuse(404, "EntryNotFound")
        if len(repo.files[file]) < LARGE_BYTES:
            return self._bytes(repo, file)
        self._redirect(f"{self.hub.cdn or self.hub.address}/{name}/bytes/{file}")

    def _redirect(self, url: str) -> None:
        self.send_response(302)
        self.send_header("Location", url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _open(self, name: str, revision: str, *, for_files: bool = False) -> Repo | None:
        repo = self.hub.repos.get(name)
        known = repo is not None and (
            repo.token is None or self.headers["Authorization"] == f"Bearer {repo.token}"
        )
        if repo is not None and repo.is_gated and for_files and not known:
            self._refuse(403, "GatedRepo")
        elif repo is None or not (known or repo.is_gated):
            self._refuse(401, "RepoNotFound")
        elif revision not in repo.branches:
            self._refuse(404, "RevisionNotFound")
        else:
            return repo
        return None

    def _bytes(self, repo: Repo, file: str) -> None:
        data = repo.wrong.get(file, repo.files[file])
        asked = self.headers["Range"] if self.hub.has_ranges else None
        start, _, last = (asked or "").removeprefix("bytes=").partition("-")
        part = slice(int(start), int(last) + 1 if last else len(data)) if asked else None
        cuts = self.hub.cuts.get(file) if self.command == "GET" else None
        cut = cuts.pop(0) if cuts else None
        if self.command == "GET":
            self.hub.sent[file] += len(data[part or slice(None)][:cut])
        self._send(data, part=part, cut=cut)

    def _send(
        self,
        data: bytes,
        *,
        part: slice | None = None,
        cut: int | None = None,
        type: str = "application/octet-stream",
    ) -> None:
        version, whole = hashlib.sha256(data[-64:]).hexdigest(), len(data)
        self.send_response(200 if part is None else 206)
        if part is not None:
            data = data[part]
            end = part.start + len(data) - 1
            self.send_header("Content-Range", f"bytes {part.start}-{end}/{whole}")
        self.send_header("Content-Type", type)
        if self.hub.has_versions:
            self.send_header("ETag", version)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    about: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if len(data) >= LARGE_BYTES:
        sha = hashlib.sha256(data).hexdigest()
        about["lfs"] = {"size": len(data), "sha256": sha, "pointerSize": 134}
    return about


@contextmanager
def serving(**repos: Repo) -> Iterator[TinyHub]:
    """Serve repositories of the owner `tiny` under their names."""
    hub = TinyHub(repos={f"tiny/{name}": repo for name, repo in repos.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
