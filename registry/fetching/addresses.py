"""Read the addresses that experts are imported from."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from registry.errors import InvalidInput, Problem

MAIN = "main"
GGUF_SUFFIX = ".gguf"
MAX_CHARACTERS = 1000
# As the Hub takes names of owners and repositories, and as git takes names of branches.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
REPO = re.compile(rf"{_NAME}(?:/{_NAME})?")
REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?")
FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ +-]{0,198}\.gguf")
FORM = (
    "give hf:OWNER/NAME, and with @REVISION or :FILE.gguf behind it where one of several is meant"
)
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


def parse(text: str, *, at: str = "") -> HubAddress:
    """Read an address. Raises InvalidInput, with the pointer `at`, for anything else."""
    if text.startswith("hf:") and len(text) <= MAX_CHARACTERS:
        return _hub_address(text, at)
    url = urlsplit(text) if "://" in text else None
    if url is not None and url.scheme == "https" and url.hostname in HUB_HOSTS:
        return _hub_page(text, url.path.strip("/"), at)
    raise _refused(text, at)


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
