"""Read the addresses that experts are imported from."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from registry.errors import InvalidInput, Problem
from registry.ingest import gguf_file
from registry.names import parse_ref
from registry.origins import origin_of

PEER = "nexusmix:"
MAIN = "main"
MAX_CHARACTERS = 2000
# As the Hub takes names of owners and repositories, and as git takes names of branches.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPO = re.compile(rf"{_NAME}(?:/{_NAME})?")
REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +-]{0,198}\.gguf")
FORM = (
    "give hf:OWNER/NAME, with @REVISION or :FILE.gguf behind it where one of several is meant, or"
    " the https:// address of a file that ends in .gguf, or nexusmix:https://HOST:PORT/NAME@VERSION"
)
PEER_FORM = f"another nexusmix is {PEER}https://HOST:PORT/NAME@VERSION"
# Pages of a repository: the files of a revision, and one file.
PAGE = re.compile(
    r"(?P<repo>[^/]+/[^/]+)(?:/(?:tree|blob|resolve)/(?P<revision>[^/]+)/?(?P<file>.*))?"
)
# Addresses of the public Hub, whatever Hub is set.
HUB_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}


@dataclass(frozen=True)
class HubAddress:
    """A model repository on a Hub: `hf:OWNER/NAME@REVISION`, and `:FILE.gguf` for one file of it.

    `revision` is a branch, a tag or a commit.
    """

    repo: str
    revision: str = MAIN
    file: str | None = None

    def __str__(self) -> str:
        file = "" if self.file is None else f":{self.file}"
        return f"hf:{self.repo}@{self.revision}{file}"


@dataclass(frozen=True)
class UrlAddress:
    """A GGUF file at a URL."""

    url: str

    def __str__(self) -> str:
        # What stands behind the path may be a permission.
        return urlunsplit(urlsplit(self.url)._replace(query=""))

    @property
    def file(self) -> str:
        """The name of the file."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True)
class PeerAddress:
    """A version of an expert that another nexusmix has, at `url`: `NAME@NUMBER`, or its newest."""

    url: str
    ref: str

    def __str__(self) -> str:
        return f"{PEER}{self.url}/{self.ref}"


Address = HubAddress | UrlAddress | PeerAddress


def parse(text: str, *, at: str = "") -> Address:
    """Read an address. Raises InvalidInput, with the pointer `at`, for anything else."""
    if len(text) > MAX_CHARACTERS:
        raise _refused(text, at)
    if text.startswith("hf:"):
        return _hub_address(text, at)
    try:
        url = urlsplit(text.removeprefix(PEER))
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise _refused(text, at, because=str(error)) from error
    if text.startswith(PEER):
        return _peer_address(text, url, at)
    if url.scheme == "https" and host in HUB_HOSTS:
        return _hub_page(text, url.path.strip("/"), at)
    if url.scheme in ("https", "http") and host:
        return _url_address(text, url, at)
    raise _refused(text, at)


def _peer_address(text: str, url: SplitResult, at: str) -> PeerAddress:
    ref = url.path.removeprefix("/")
    try:
        parse_ref(ref)
        origin_of(url.geturl())
    except (InvalidInput, ValueError) as error:
        raise _refused(text, at, because=PEER_FORM) from error
    if "@" in url.netloc or url.query or url.fragment:
        raise _refused(text, at, because=PEER_FORM)
    return PeerAddress(f"{url.scheme}://{url.netloc}", ref)


def _url_address(text: str, url: SplitResult, at: str) -> UrlAddress:
    if "@" in url.netloc:
        raise _refused(text, at, because="a name or a password in an address would be kept with it")
    if url.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise _refused(text, at, because="it has characters that no address has")
    address = UrlAddress(text)
    if not FILE.fullmatch(address.file):
        raise _refused(text, at, because=f"it names no file that ends in {gguf_file.SUFFIX}")
    return address


def _hub_address(text: str, at: str) -> HubAddress:
    rest, colon, file = text.removeprefix("hf:").partition(":")
    repo, sign, revision = rest.partition("@")
    address = HubAddress(repo, revision if sign else MAIN, file if colon else None)
    return _checked(text, address, at)


def _hub_page(text: str, path: str, at: str) -> HubAddress:
    page = PAGE.fullmatch(path)
    if page is None:
        raise _refused(text, at)
    parts = {name: unquote(part or "") for name, part in page.groupdict().items()}
    address = HubAddress(parts["repo"], parts["revision"] or MAIN, parts["file"] or None)
    return _checked(text, address, at)


def _checked(text: str, address: HubAddress, at: str) -> HubAddress:
    if not REPO.fullmatch(address.repo) or ".." in address.repo:
        raise _refused(text, at, because=f"{address.repo!r} is no repository")
    if not REVISION.fullmatch(address.revision) or ".." in address.revision:
        raise _refused(text, at, because=f"{address.revision!r} is no revision")
    if address.file is not None and not FILE.fullmatch(address.file):
        raise _refused(
            text, at, because=f"{address.file!r} is no GGUF file in the repository's first folder"
        )
    return address


def _refused(text: str, at: str, *, because: str = "") -> InvalidInput:
    detail = f"{text[:MAX_CHARACTERS]!r} cannot be imported: {because or FORM}"
    return InvalidInput(detail, problems=(Problem(at, detail),) if at else ())
