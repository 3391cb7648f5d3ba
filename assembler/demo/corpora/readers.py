"""Read the raw texts of each corpus from its unpacked package, as pairs of name and text."""

import gzip
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from assembler.demo.corpora import html, manpages

Texts = Iterator[tuple[str, str]]

# Neighboring statements or dictionary entries are alike, so they form one text of this length.
_GROUP_CHARACTERS = 3_000


def manual_pages(folder: Path) -> Texts:
    """Yield the text of every manual page."""
    for file in _files(folder, "usr/share/man/**/*.gz"):
        yield _name(file, folder), manpages.plain_text(_read(file))


def html_pages(folder: Path) -> Texts:
    """Yield the pages of an HTML manual, without release notes, which are lists of names."""
    for file in _files(folder, "usr/share/**/doc/**/*.html"):
        if not file.name.startswith("release"):
            yield _name(file, folder), html.plain_text(_read(file))


def markdown(folder: Path) -> Texts:
    """Yield the sections of essays in Markdown, so that long essays give several texts."""
    for file in _files(folder, "usr/share/doc/**/*.md*"):
        yield from _numbered(_name(file, folder), re.split(r"\n(?=#+ )", _read(file)))


def plain_old_documentation(folder: Path) -> Texts:
    """Yield the pages of Perl's manual (POD), without release notes and indexes."""
    for file in _files(folder, "usr/share/perl/**/*.pod"):
        if not re.fullmatch(r"perl(5\d+delta|hist|toc|uniprops)\.pod", file.name):
            text = re.sub(r"[BCFILSX]<+\s?([^<>]*?)\s?>+", r"\1", _read(file))
            yield file.name, re.sub(r"^=\w+[ \t]*", "", text, flags=re.MULTILINE)


def c_headers(folder: Path) -> Texts:
    """Yield C headers without the comments at their beginning."""
    for file in _files(folder, "usr/include/**/*.h"):
        yield _name(file, folder), re.sub(r"\A(\s*/\*.*?\*/)+", "", _read(file), flags=re.DOTALL)


def go_sources(folder: Path) -> Texts:
    """Yield Go sources from their package clause on, without tests and generated files."""
    for file in _files(folder, "usr/share/go-*/src/**/*.go"):
        text = _read(file)
        if not file.name.endswith("_test.go") and "DO NOT EDIT" not in text[:1000]:
            yield _name(file, folder), re.sub(r"\A.*?(?=^package )", "", text, flags=re.S | re.M)


def bilingual_dictionary(folder: Path) -> Texts:
    """Yield groups of entries of FreeDict: words with pronunciation, translations, examples."""
    for file in _files(folder, "usr/share/dictd/*.dict.dz"):
        entries = re.split(r"\n(?=\S+[^\n]* /[^/\n]+/\n)", _read(file))
        yield from group(file.name, entries)


def python_modules(_: Path) -> Texts:
    """Yield the standard library of the running Python, without tests and character tables."""
    library = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "encodings", "lib2to3"}
    for file in _files(library, "**/*.py"):
        if skipped.isdisjoint(file.relative_to(library).parts):
            yield _name(file, library), _read(file)


def metamath(folder: Path) -> Texts:
    """Yield groups of statements of set.mm, with their comments and compressed proofs."""
    text = _read(next(_files(folder, "usr/share/metamath/**/set.mm")))
    statements = re.split(r"\n(?= *\$\( )", text)
    yield from group("set.mm", statements)


def dictionary(folder: Path) -> Texts:
    """Yield groups of entries of GCIDE, without the marks of source editions.

    An entry begins with a line that is not indented.
    """
    text = _read(next(_files(folder, "usr/share/dictd/gcide.dict.dz")))
    text = re.sub(r"\n *\[(1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.)[^\]]*\]", "", text)
    entries = re.split(r"\n(?=[^\s])", text)
    yield from group("gcide", entries)


def group(name: str, parts: Iterable[str]) -> Texts:
    """Join neighboring parts into texts of at least _GROUP_CHARACTERS; drop a shorter rest."""
    joined: list[str] = []
    number = 0
    for part in parts:
        joined.append(part.strip("\n"))
        if sum(map(len, joined)) >= _GROUP_CHARACTERS:
            yield f"{name}/{number}", "\n\n".join(joined)
            joined, number = [], number + 1


def _numbered(name: str, parts: Iterable[str]) -> Texts:
    for number, part in enumerate(parts):
        yield f"{name}/{number}", part


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    return (file for file in sorted(folder.glob(pattern)) if file.is_file())


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder))


def _read(file: Path) -> str:
    data = file.read_bytes()
    if file.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    return data.decode(errors="replace")
